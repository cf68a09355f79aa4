"""Augmentation that depends on the seed, the epoch and the image, and on nothing else."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmbeit.datasets.samplers import SampleIndex
from mmbeit.registry import TRANSFORMS


def seed_generators(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch on the CPU, all of which augmentation draws from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` asks every kind of device: 0.13 ms


@contextmanager
def generators_kept() -> Iterator[None]:
    """Leave these generators as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@TRANSFORMS.register_module()
class SeedTransforms(BaseTransform):
    """First step of a pipeline: seed every random generator from the sample's own seed.

    Needs a sampler of :mod:`mmbeit.datasets.samplers`; under any other it does nothing. With it, a run that was
    killed and resumed sees the same crops and masks as one that was not, with any number of workers.
    """

    def transform(self, results: dict) -> dict:
        index = results.get('sample_idx')
        if isinstance(index, SampleIndex):
            seed_generators(index.seed)
        return results
