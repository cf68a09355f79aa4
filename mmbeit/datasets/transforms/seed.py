"""Augmentation that depends on the seed, the epoch and the image, and on nothing else."""

import random

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmbeit.datasets.samplers import SampleIndex
from mmbeit.registry import TRANSFORMS


@TRANSFORMS.register_module()
class SeedTransforms(BaseTransform):
    """First step of a pipeline: seed every random generator from the sample's own seed.

    Needs a sampler of :mod:`mmbeit.datasets.samplers`; under any other it does nothing. With it, a run that was
    killed and resumed sees the same crops and masks as one that was not, with any number of workers.
    """

    def transform(self, results: dict) -> dict:
        index = results.get('sample_idx')
        if isinstance(index, SampleIndex):
            random.seed(index.seed)
            np.random.seed(index.seed)
            torch.manual_seed(index.seed)
        return results
