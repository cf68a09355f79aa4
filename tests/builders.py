"""Tiny models with every parameter randomised: a table or a bias that starts at zero hides bugs."""

import re

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmbeit.models import BEiT

TINY = dict(embed_dims=24, num_layers=4, num_heads=3, feedforward_channels=96)
NUM_CLASSES = 7
NUM_CODES = 11


def randomize(module: nn.Module, std: float = 0.3) -> nn.Module:
    """Draw every parameter from a normal distribution, norms' weights and layer scales around 1."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            centre = float('gamma' in name or 'lambda' in name or (parameter.ndim == 1 and name.endswith('weight')))
            parameter.normal_(centre, std)
    module.eval()  # mmpretrain's backbones return None from it
    return module


def tiny_beit(**kwargs) -> BEiT:
    """A randomised backbone of 4 blocks and width 24, on images of 32 pixels and patches of 8."""
    return randomize(BEiT(**{'arch': TINY, 'img_size': 32, 'patch_size': 8, **kwargs}))


def tiny_backbone_cfg(**kwargs) -> dict:
    """Config of the same backbone, not randomised."""
    return dict(type='mmbeit.BEiT', **{'arch': dict(TINY), 'img_size': 32, 'patch_size': 8, **kwargs})


def tiny_classifier(**kwargs) -> nn.Module:
    """mmpretrain's classifier around the tiny backbone, built from a config as a recipe builds it."""
    classifier = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=tiny_backbone_cfg(**kwargs),
            head=dict(type='LinearClsHead', num_classes=NUM_CLASSES, in_channels=TINY['embed_dims']),
        )
    )
    return randomize(classifier)


def tiny_mim(v2: bool = False, shared: bool = True, **kwargs) -> nn.Module:
    """A pretraining model around the tiny backbone, without a target generator.

    Args:
        v2: Whether to predict from the patches after the third block, too.
        shared: Whether by the same classifier.
        kwargs: Of the backbone.
    """
    cfg = dict(
        type='mmbeit.MaskedImageModeling',
        backbone=tiny_backbone_cfg(**{'rel_pos_bias': 'shared', 'mask_token': True, 'out_type': 'raw', **kwargs}),
        neck=dict(type='mmbeit.PatchAggregationNeck', early_layers=3) if v2 else None,
        head=dict(type='mmbeit.MIMHead', num_codes=NUM_CODES, shared=shared),
    )
    return randomize(MODELS.build(cfg))


def logits_of(classifier: nn.Module, images: Tensor) -> Tensor:
    return classifier.head(classifier.extract_feat(images))


def load_renamed(model: nn.Module, state: dict[str, Tensor], table: list[tuple[str, str | None]]) -> nn.Module:
    """Load another project's weights. Every key of either side has to be accounted for.

    Args:
        model: What to load into, strictly.
        state: Weights under foreign names.
        table: (pattern, name here) rows, the name None for what is dropped on purpose. The first match counts.
    """
    renamed = {}
    for key, value in state.items():
        rows = ((re.fullmatch(pattern, key), name) for pattern, name in table)
        match, name = next((row for row in rows if row[0]), (None, None))
        assert match, f'no row for {key}'
        if name is not None:
            renamed[match.expand(name)] = value
    model.load_state_dict(renamed, strict=True)
    return model
