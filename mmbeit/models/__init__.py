"""Registered models. Importing this package fills `mmbeit.registry.MODELS`."""

from mmbeit.models.algorithms.dvae import DiscreteVAE
from mmbeit.models.algorithms.mim import MaskedImageModeling
from mmbeit.models.algorithms.vqkd import VQKD
from mmbeit.models.backbones.beit import BEiT
from mmbeit.models.data_preprocessors import MIMDataPreprocessor
from mmbeit.models.heads.linear_probe import LinearProbeHead
from mmbeit.models.heads.mim import MIMHead
from mmbeit.models.necks.feature_pyramid import FeaturePyramid
from mmbeit.models.necks.map_norm import MapNorm
from mmbeit.models.necks.patch_aggregation import PatchAggregationNeck
from mmbeit.models.norms import CPUSyncBN
from mmbeit.models.target_generators.base import TargetGenerator
from mmbeit.models.target_generators.beit_teacher import BEiTTeacher
from mmbeit.models.target_generators.dvae import DVAETokenizer
from mmbeit.models.target_generators.stored import StoredTokens
from mmbeit.models.target_generators.teachers import TimmTeacher, TransformersTeacher
from mmbeit.models.target_generators.vqkd import VQKDEncoder, VQKDTokenizer

__all__ = [
    'BEiT',
    'BEiTTeacher',
    'CPUSyncBN',
    'DVAETokenizer',
    'DiscreteVAE',
    'FeaturePyramid',
    'LinearProbeHead',
    'MapNorm',
    'MIMDataPreprocessor',
    'MIMHead',
    'MaskedImageModeling',
    'PatchAggregationNeck',
    'StoredTokens',
    'TargetGenerator',
    'TimmTeacher',
    'TransformersTeacher',
    'VQKD',
    'VQKDEncoder',
    'VQKDTokenizer',
]
