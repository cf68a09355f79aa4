"""Registered transforms. Importing this package fills `mmbeit.registry.TRANSFORMS`."""

from mmbeit.datasets.transforms.answers import ScoreAnswers
from mmbeit.datasets.transforms.erasing import RandomErasing
from mmbeit.datasets.transforms.fast import JitterViews, LoadTwoViews
from mmbeit.datasets.transforms.image import LoadImage, RandomResizedCropTwoViews
from mmbeit.datasets.transforms.mask import BlockwiseMask
from mmbeit.datasets.transforms.rand_augment import RandAugment
from mmbeit.datasets.transforms.replay import ReplayView
from mmbeit.datasets.transforms.seed import SeedTransforms
from mmbeit.datasets.transforms.segmentation import LoadImageFromFile, LoadSegMap
from mmbeit.datasets.transforms.text import MaskText, TokenizeText

__all__ = [
    'BlockwiseMask',
    'JitterViews',
    'LoadImage',
    'LoadImageFromFile',
    'LoadSegMap',
    'LoadTwoViews',
    'MaskText',
    'RandAugment',
    'RandomErasing',
    'RandomResizedCropTwoViews',
    'ReplayView',
    'ScoreAnswers',
    'SeedTransforms',
    'TokenizeText',
]
