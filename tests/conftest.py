"""Tiny models with every parameter randomised: a table or a bias that starts at zero hides bugs."""

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from mmbeit.models import BEiT

TINY = dict(embed_dims=24, num_layers=4, num_heads=3, feedforward_channels=96)


@pytest.fixture(autouse=True)
def _seed_and_scope():
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def randomize(module: nn.Module, std: float = 0.3) -> nn.Module:
    """Draw every parameter from a normal distribution, norms' weights and layer scales around 1."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            centre = float('gamma' in name or 'lambda' in name or (parameter.ndim == 1 and name.endswith('weight')))
            parameter.normal_(centre, std)
    return module.eval()


def tiny_beit(**kwargs) -> BEiT:
    """A randomised backbone of 4 blocks and width 24, on images of 32 pixels and patches of 8."""
    return randomize(BEiT(**{'arch': TINY, 'img_size': 32, 'patch_size': 8, **kwargs}))
