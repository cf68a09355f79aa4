"""Initialisation as in the official code."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from mmbeit.layers.block import Block
from mmbeit.layers.multiway import Multiway, MultiwayBlock


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


def init_subln_(blocks: Sequence[MultiwayBlock]) -> None:
    """Draw the weights of blocks with sub-LN, to pretrain them from scratch (https://arxiv.org/abs/2210.06423).

    Xavier's normal draw, for values, output projections and MLPs with the gain sqrt(ln(2 L)) of an encoder of L blocks;
    biases zero. The official fine-tuning code draws all linear layers anew after torchscale has applied these gains.
    """
    gain = math.sqrt(math.log(2 * len(blocks)))
    for block in blocks:
        attn = block.attn
        plain: list[Multiway] = [attn.q, attn.k]
        for part in (*plain, attn.v, attn.proj, block.mlp):
            for linear in part.modules():
                if isinstance(linear, nn.Linear):
                    nn.init.xavier_normal_(linear.weight, gain=1.0 if part in plain else gain)
                    nn.init.zeros_(linear.bias)
        for norm in block.modules():
            if isinstance(norm, nn.LayerNorm):
                norm.reset_parameters()
