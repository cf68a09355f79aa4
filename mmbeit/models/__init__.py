"""Registered models. Importing this package fills `mmbeit.registry.MODELS`."""

from mmbeit.models.algorithms.dvae import DiscreteVAE
from mmbeit.models.algorithms.mdm import MaskedDataModeling
from mmbeit.models.algorithms.mim import MaskedImageModeling
from mmbeit.models.algorithms.vision_language import Captioner, DualEncoder, FusionEncoder
from mmbeit.models.backbones.beit import BEiT
from mmbeit.models.backbones.beit3 import BEiT3
from mmbeit.models.data_preprocessors import MDMDataPreprocessor, MIMDataPreprocessor
from mmbeit.models.heads.captioning import MaskedTokenHead
from mmbeit.models.heads.fusion import NLVRHead, VQAHead
from mmbeit.models.heads.linear_probe import LinearProbeHead
from mmbeit.models.heads.mim import MIMHead
from mmbeit.models.heads.retrieval import ContrastiveHead
from mmbeit.models.necks.pooler import Pooler
from mmbeit.models.target_generators.base import TargetGenerator
from mmbeit.models.target_generators.dvae import DVAETokenizer

__all__ = [
    'BEiT',
    'BEiT3',
    'Captioner',
    'ContrastiveHead',
    'DVAETokenizer',
    'DiscreteVAE',
    'DualEncoder',
    'FusionEncoder',
    'LinearProbeHead',
    'MDMDataPreprocessor',
    'MIMDataPreprocessor',
    'MIMHead',
    'MaskedDataModeling',
    'MaskedImageModeling',
    'MaskedTokenHead',
    'NLVRHead',
    'Pooler',
    'TargetGenerator',
    'VQAHead',
]
