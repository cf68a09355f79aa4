"""Tiny models of BEiT-3 with every parameter randomised."""

import torch
from builders import randomize
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmbeit.models import BEiT3

TINY = dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=48)
SIZES = dict(arch=TINY, img_size=32, patch_size=8, vocab_size=20, num_text_positions=12)
NUM_PATCHES = 16
BOS, PAD, EOS, MASK = 0, 1, 2, 18


def backbone_cfg(**kwargs) -> dict:
    """Config of an encoder of 3 blocks and width 24, on images of 32 pixels, patches of 8, and texts of 10 tokens."""
    return dict(type='mmbeit.BEiT3', **{**SIZES, 'arch': dict(TINY), **kwargs})


def tiny_beit3(**kwargs) -> BEiT3:
    return randomize(MODELS.build(backbone_cfg(**kwargs)))


def build(cfg: dict) -> nn.Module:
    return randomize(MODELS.build(cfg))


def images(*size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *(size or (32, 32)))


def texts(*lengths: int) -> tuple[Tensor, Tensor]:
    """Random ids (B, longest) of texts of these lengths between `<s>` and `</s>`, padded; and where the padding is."""
    ids = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(4, MASK, (length,))
        row[0], row[length - 1] = BOS, EOS
    return ids, torch.arange(max(lengths))[None] >= torch.tensor(lengths)[:, None]
