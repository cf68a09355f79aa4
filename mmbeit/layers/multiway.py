"""The transformer block of BEiT-3: two modalities with weights of their own, which meet in the softmax of attention.

Tokens travel by modality, in a dict with 'vision', 'text', or both. So nothing has to know where in a sequence one of
them ends, no module keeps state between two calls, and what is not there costs nothing.

In shapes: B batch, L tokens (of all modalities, in the order of the dict), D width, H heads.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbeit.layers.attention import pick
from mmbeit.layers.block import DropPath, Kept

MODALITIES = ('vision', 'text')
EPS = 1e-5  # of every LayerNorm; BEiT v1 and v2 have 1e-6

Streams = dict[str, Tensor]  # (B, length, D) for each modality
Keep = Mapping[str, int | Tensor]  # by modality how many of the first tokens, or which of each sample, (B, T) long


class KeyValue(NamedTuple):
    """What a block remembers of the tokens that it has seen. Both are (B, H, L, D / H)."""

    key: Tensor
    value: Tensor


def kept_tokens(streams: Streams, keep: Keep) -> Streams:
    """The tokens to keep, all of a modality that is not named; one without tokens is left out."""
    out = {}
    for name, x in streams.items():
        chosen = keep.get(name, x.shape[1])
        if isinstance(chosen, Tensor):
            out[name] = pick(x, chosen)
        elif chosen:
            out[name] = x[:, :chosen]
    return out


class Multiway(nn.ModuleDict):
    """The same module once for each modality, with weights of its own (BEiT-3, section 2.1; torchscale:component).

    In the paper the modalities share the weights of attention, and upper layers have a third feed-forward network for
    both; the released models share nothing.

    Args:
        build: Makes one of the modules.
        modalities: Which modalities there are.
    """

    def __init__(self, build: Callable[[], nn.Module], modalities: Sequence[str] = MODALITIES):
        super().__init__({name: build() for name in modalities})

    def forward(self, streams: Streams) -> Streams:
        return {name: self[name](x) for name, x in streams.items()}


class SubLNMlp(nn.Module):
    """Two linear layers with the exact GELU and a LayerNorm between them (https://arxiv.org/abs/2210.06423)."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim, eps=EPS)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.norm(F.gelu(self.fc1(x))))


class MultiwayAttention(nn.Module):
    """Self-attention over the tokens of all modalities, with a LayerNorm before the output projection.

    q, k and v carry a bias. That of k does not cancel here, as it does in BEiT v1: the keys in one row of the softmax
    have two of them.

    Args:
        dim: Width D of the tokens.
        num_heads: Number of heads H; divides `dim`.
        modalities: Which modalities there are.
    """

    def __init__(self, dim: int, num_heads: int, modalities: Sequence[str] = MODALITIES):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'dim ({dim}) must be divisible by num_heads ({num_heads})')
        self.num_heads = num_heads
        self.q = Multiway(lambda: nn.Linear(dim, dim), modalities)
        self.k = Multiway(lambda: nn.Linear(dim, dim), modalities)
        self.v = Multiway(lambda: nn.Linear(dim, dim), modalities)
        self.norm = Multiway(lambda: nn.LayerNorm(dim, eps=EPS), modalities)
        self.proj = Multiway(lambda: nn.Linear(dim, dim), modalities)

    def forward(
        self, queries: Streams, streams: Streams, attn_bias: Tensor | None = None, past: KeyValue | None = None
    ) -> tuple[Streams, KeyValue]:
        """Attend from `queries` to every token of `streams`, and to those of `past`, which come before them.

        Args:
            queries: Tokens that ask.
            streams: Tokens that are asked.
            attn_bias: Added to the attention logits, broadcastable to (B, H, queries, keys).
            past: Of earlier tokens.

        Returns:
            What each of the queries has gathered; keys and values of `past` and `streams`.
        """
        q, k, v = self._heads(self.q(queries)), self._heads(self.k(streams)), self._heads(self.v(streams))
        if past is not None:
            k, v = torch.cat([past.key, k], dim=2), torch.cat([past.value, v], dim=2)
        if attn_bias is not None:
            attn_bias = attn_bias.to(q.dtype)  # the fused kernels want one dtype
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_bias)
        lengths = [x.shape[1] for x in queries.values()]
        out = dict(zip(queries, out.transpose(1, 2).flatten(2).split(lengths, dim=1), strict=True))
        return self.proj(self.norm(out)), KeyValue(k, v)

    def _heads(self, streams: Streams) -> Tensor:
        """Of all modalities (B, H, L, D / H)."""
        parts = list(streams.values())
        x = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class MultiwayBlock(nn.Module):
    """Pre-norm residual block with the extra norms of sub-LN: attention, then MLP (torchscale:architecture/encoder.py).

    Args:
        dim: Width D of the tokens.
        num_heads: Number of attention heads.
        hidden_dim: Width of the MLP between its two layers.
        modalities: Which modalities there are.
        drop_path: Probability of dropping each of the two branches, per sample, in all modalities at once.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        modalities: Sequence[str] = MODALITIES,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.norm1 = Multiway(lambda: nn.LayerNorm(dim, eps=EPS), modalities)
        self.attn = MultiwayAttention(dim, num_heads, modalities)
        self.norm2 = Multiway(lambda: nn.LayerNorm(dim, eps=EPS), modalities)
        self.mlp = Multiway(lambda: SubLNMlp(dim, hidden_dim), modalities)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        streams: Streams,
        attn_bias: Tensor | None = None,
        past: KeyValue | None = None,
        keep: Keep | None = None,
    ) -> tuple[Streams, KeyValue]:
        """Run the block.

        Args:
            streams: Tokens by modality.
            attn_bias: Added to the attention logits, broadcastable to (B, H, tokens that come out, keys).
            past: Keys and values of earlier tokens, which come before those of `streams`.
            keep: Which tokens of a modality come out, all where it is not named. The others are attended to and not
                computed any further.

        Returns:
            Tokens by modality; keys and values of all tokens, in training of those samples that were not dropped.
        """
        kept = self._draw(streams)
        normed = self.norm1({name: kept.of(x) for name, x in streams.items()})
        queries = normed
        if keep:
            of_kept = {name: kept.of(one) if isinstance(one, Tensor) else one for name, one in keep.items()}
            streams, queries = kept_tokens(streams, keep), kept_tokens(normed, of_kept)
        if attn_bias is not None and len(attn_bias) > 1:
            attn_bias = kept.of(attn_bias)
        branch, present = self.attn(queries, normed, attn_bias, past)
        streams = {name: kept.add(x, branch[name]) for name, x in streams.items()}
        kept = self._draw(streams)
        branch = self.mlp(self.norm2({name: kept.of(x) for name, x in streams.items()}))
        return {name: kept.add(x, branch[name]) for name, x in streams.items()}, present

    def _draw(self, streams: Streams) -> Kept:
        """For which samples a branch is kept, in all modalities at once."""
        x = next(iter(streams.values()))
        return self.drop_path(len(x), x.device)
