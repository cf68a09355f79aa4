"""The transformer block of BEiT v1 and v2."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbeit.layers.attention import Attention, pick
from mmbeit.layers.position import Bias


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch."""

    def __init__(self, dim: int, init: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init)))

    def forward(self, x: Tensor, weight: float = 1.0) -> Tensor:
        return (self.gamma if weight == 1 else self.gamma * weight) * x


class Kept(NamedTuple):
    """For which samples of a batch a residual branch is run, and what it counts.

    Attributes:
        samples: Of the B samples, those for whom it is run (S,) long; None: all.
        counts: Where it is run for all, for whom it counts: bool (B,); None: for all.
        weight: By which it is multiplied.
    """

    samples: Tensor | None = None
    counts: Tensor | None = None
    weight: float = 1.0

    def of(self, x: Tensor) -> Tensor:
        """The samples (S, ...) of a batch (B, ...) for whom the branch is run."""
        return x if self.samples is None else x.index_select(0, self.samples)

    def add(self, x: Tensor, branch: Tensor) -> Tensor:
        """Add what the branch made of :meth:`of` to the batch (B, ...)."""
        if self.samples is not None:
            return x.index_add(0, self.samples, branch.to(x.dtype), alpha=self.weight)
        if self.counts is not None:
            branch = branch * self.counts.view(-1, *[1] * (branch.ndim - 1))
        return x + branch if self.weight == 1 else torch.add(x, branch, alpha=self.weight)


class DropPath(nn.Module):
    """Stochastic depth: in training, drop a residual branch for a whole sample with probability `rate`."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = float(rate)

    def forward(self, num_samples: int, device: torch.device) -> Kept:
        """Draw for which samples the branch is kept, where it weighs 1 / (1 - rate).

        On CPUs it is not run for the others. On GPUs it is, where picking samples and putting them back moves more
        memory than the work is worth at the rates of the papers; and in compiled code, whose shapes would change in
        every step.

        Args:
            num_samples: Size B of the batch.
            device: Of the samples.
        """
        if not self.training or self.rate == 0:
            return Kept()
        counts, weight = torch.rand(num_samples, device=device) >= self.rate, 1 / (1 - self.rate)
        if device.type != 'cpu' or torch.compiler.is_compiling():
            return Kept(counts=counts, weight=weight)
        samples = counts.nonzero()[:, 0]
        if len(samples) == num_samples:
            return Kept(weight=weight)
        if len(samples) == 0:  # one without weight, for every parameter is to have a gradient: DDP waits for it
            return Kept(counts.new_zeros(1, dtype=torch.long), weight=0.0)
        return Kept(samples, weight=weight)

    def extra_repr(self) -> str:
        return f'{self.rate:.4f}'


class Block(nn.Module):
    """Pre-norm residual block: attention, then MLP (unilm:beit/modeling_finetune.py).

    Args:
        dim: Width D of the tokens.
        num_heads: Number of attention heads.
        hidden_dim: Width of the MLP between its two layers.
        layer_scale: Initial value of the layer scale, or None for none.
        drop_path: Probability of dropping each of the two branches, per sample.
    """

    def __init__(
        self, dim: int, num_heads: int, hidden_dim: int, layer_scale: float | None = None, drop_path: float = 0.0
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden_dim)
        self.scale1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.scale2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, attn_bias: Bias | None = None, keep: Tensor | None = None) -> Tensor:
        """Run the block.

        Args:
            x: Tokens (B, N, D).
            attn_bias: Added to the attention logits of each sample, broadcastable to (H, N, N).
            keep: Which tokens of each sample come out, (B, T) long in [0, N); None: all. The others are attended to
                and not computed any further.

        Returns:
            Tokens (B, N, D), or those to keep (B, T, D).
        """
        kept = self.drop_path(len(x), x.device)
        branch = self.attn(self.norm1(kept.of(x)), attn_bias, None if keep is None else kept.of(keep))
        x = add_scaled(x if keep is None else pick(x, keep), branch, self.scale1, kept)
        kept = self.drop_path(len(x), x.device)
        return add_scaled(x, self.mlp(self.norm2(kept.of(x))), self.scale2, kept)


def add_scaled(x: Tensor, branch: Tensor, scale: nn.Module, kept: Kept) -> Tensor:
    """Add a residual branch. Its weight multiplies the layer scale, which is small, where there is one."""
    if isinstance(scale, LayerScale):
        return kept._replace(weight=1.0).add(x, scale(branch, kept.weight))
    return kept.add(x, branch)
