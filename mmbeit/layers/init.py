"""Initialisation as in the official code."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mmbeit.layers.block import Block


def trunc_normal_(tensor: Tensor, std: float = 0.02, bound: float = 2.0) -> Tensor:
    """Normal draw, redrawn outside of +-`bound` (an absolute value, not a multiple of `std`).

    Pretraining cuts at one sigma (`bound=0.02`: the effective std is then 0.0108), fine-tuning and tokenizers at 2,
    which never happens (unilm:beit/modeling_pretrain.py, beit/modeling_finetune.py).
    """
    return nn.init.trunc_normal_(tensor, std=std, a=-bound, b=bound)


def init_transformer_(module: nn.Module, bound: float) -> None:
    """Draw every Linear weight, zero every Linear bias, reset every LayerNorm below `module`, in place."""
    for m in module.modules():
        if isinstance(m, nn.Linear):
            trunc_normal_(m.weight, bound=bound)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.LayerNorm):
            m.reset_parameters()


@torch.no_grad()
def rescale_depth_(blocks: Iterable[Block], first: int = 1) -> None:
    """Divide what the l-th block adds to the residual by sqrt(2 l), l counted from `first` (BEiT, section 2.5)."""
    for layer, block in enumerate(blocks, first):
        block.attn.proj.weight.div_(math.sqrt(2 * layer))
        block.mlp.fc2.weight.div_(math.sqrt(2 * layer))
