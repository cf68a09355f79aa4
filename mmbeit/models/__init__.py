"""Registered models. Importing this package fills `mmbeit.registry.MODELS`."""

from mmbeit.models.algorithms.dvae import DiscreteVAE
from mmbeit.models.algorithms.mdm import MaskedDataModeling
from mmbeit.models.algorithms.mim import MaskedImageModeling
from mmbeit.models.algorithms.vision_language import Captioner, DualEncoder, FusionEncoder
from mmbeit.models.algorithms.vqkd import VQKD
from mmbeit.models.backbones.beit import BEiT
from mmbeit.models.backbones.beit3 import BEiT3
from mmbeit.models.data_preprocessors import MDMDataPreprocessor, MIMDataPreprocessor
from mmbeit.models.heads.captioning import MaskedTokenHead
from mmbeit.models.heads.fusion import NLVRHead, VQAHead
from mmbeit.models.heads.linear_probe import LinearProbeHead
from mmbeit.models.heads.mim import MIMHead
from mmbeit.models.heads.retrieval import ContrastiveHead
from mmbeit.models.necks.feature_pyramid import FeaturePyramid
from mmbeit.models.necks.map_norm import MapNorm
from mmbeit.models.necks.patch_aggregation import PatchAggregationNeck
from mmbeit.models.necks.pooler import Pooler
from mmbeit.models.norms import CPUSyncBN
from mmbeit.models.target_generators.base import TargetGenerator
from mmbeit.models.target_generators.beit_teacher import BEiTTeacher
from mmbeit.models.target_generators.dvae import DVAETokenizer
from mmbeit.models.target_generators.stored import StoredTokens
from mmbeit.models.target_generators.teachers import TimmTeacher, TransformersTeacher
from mmbeit.models.target_generators.vqkd import VQKDEncoder, VQKDTokenizer

__all__ = [
    'BEiT',
    'BEiT3',
    'BEiTTeacher',
    'CPUSyncBN',
    'Captioner',
    'ContrastiveHead',
    'DVAETokenizer',
    'DiscreteVAE',
    'DualEncoder',
    'FeaturePyramid',
    'FusionEncoder',
    'LinearProbeHead',
    'MDMDataPreprocessor',
    'MIMDataPreprocessor',
    'MIMHead',
    'MapNorm',
    'MaskedDataModeling',
    'MaskedImageModeling',
    'MaskedTokenHead',
    'NLVRHead',
    'PatchAggregationNeck',
    'Pooler',
    'StoredTokens',
    'TargetGenerator',
    'TimmTeacher',
    'TransformersTeacher',
    'VQAHead',
    'VQKD',
    'VQKDEncoder',
    'VQKDTokenizer',
]
