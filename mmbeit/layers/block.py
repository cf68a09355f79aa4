"""The transformer block of BEiT v1 and v2."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbeit.layers.attention import Attention
from mmbeit.layers.position import BiasRows


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

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x


class DropPath(nn.Module):
    """Stochastic depth: in training, drop a residual branch for a whole sample with probability `rate`."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = float(rate)

    def forward(self, x: Tensor, samples: Tensor | None = None, num_samples: int | None = None) -> Tensor:
        """Drop.

        Args:
            x: A sample in each row (B, ...); or tokens (T, D) of which `samples` says whose they are.
            samples: (T,) long, in [0, num_samples).
            num_samples: Samples B of the batch, for which the same is drawn as for whole ones.
        """
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        kept = torch.rand(num_samples or x.shape[0], *[1] * (x.ndim - 1), device=x.device).add_(keep).floor_()
        return x / keep * (kept if samples is None else kept[samples])

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

    def forward(self, x: Tensor, attn_bias: Tensor | BiasRows | None = None, keep: Tensor | None = None) -> Tensor:
        """Run the block.

        Args:
            x: Tokens (B, N, D).
            attn_bias: Added to the attention logits, broadcastable to (B, H, N, N).
            keep: Which tokens of the batch come out, (T,) long in [0, B*N); None: all. The others are attended to and
                not computed any further.

        Returns:
            Tokens (B, N, D), or those to keep (T, D).
        """
        B, N, _ = x.shape
        samples = None if keep is None else keep // N
        branch = self.attn(self.norm1(x), attn_bias, keep)
        x = x if keep is None else x.flatten(0, 1)[keep]
        x = x + self.drop_path(self.scale1(branch), samples, B)
        return x + self.drop_path(self.scale2(self.mlp(self.norm2(x))), samples, B)
