"""Self-attention with one additive bias."""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention.flex_attention import flex_attention

from mmbeit.layers.kernels import kernel_that_learns
from mmbeit.layers.position import Bias, BiasRows, BiasTable

MAX_CHUNK = 2**25  # bytes of the bias that is there at a time, where it is made row by row


class Attention(nn.Module):
    """Multi-head self-attention. q and v carry a bias; k needs none, because it would cancel in the softmax.

    Args:
        dim: Width D of the tokens.
        num_heads: Number of heads H; divides `dim`.

    Attributes:
        kernel: By which of :data:`mmbeit.layers.kernels.KERNELS` attention was computed last.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'dim ({dim}) must be divisible by num_heads ({num_heads})')
        self.num_heads = num_heads
        self.kernel: str | None = None
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, attn_bias: Bias | None = None, keep: Tensor | None = None) -> Tensor:
        """Attend from every token, or from some, to every token.

        Args:
            x: Tokens (B, N, D).
            attn_bias: Added to the attention logits, broadcastable to (B, H, N, N), or (H, N, N) where `keep` is given;
                or one that is made as it is needed.
            keep: Which tokens of each sample come out, (B, T) long in [0, N); None: all.

        Returns:
            Tokens (B, N, D), or those to keep (B, T, D).
        """
        if keep is not None and isinstance(attn_bias, BiasRows | BiasTable):
            return pick(self.forward(x, attn_bias), keep)
        no_bias = torch.zeros_like(self.q_bias)
        if keep is None:
            projected = [F.linear(x, self.qkv.weight, torch.cat([self.q_bias, no_bias, self.v_bias]))]
        else:
            of_q, of_kv = self.qkv.weight.split([self.qkv.in_features, 2 * self.qkv.in_features])
            projected = [
                F.linear(pick(x, keep), of_q, self.q_bias),
                F.linear(x, of_kv, torch.cat([no_bias, self.v_bias])),
            ]
            attn_bias = attn_bias if attn_bias is None else rows_of(attn_bias, keep)
        projected = [p.unflatten(2, (-1, self.num_heads, x.shape[2] // self.num_heads)) for p in projected]
        self.kernel = kernel = kernel_of(attn_bias, x.device.type)
        return self.proj((BiasedAttention.apply if kernel == 'own' else attend)(attn_bias, *projected))


def kernel_of(bias: Bias | None, device: str) -> str:
    """The kernel for a bias in the form that it comes in, or for none."""
    if isinstance(bias, BiasRows):
        return 'rows'
    if isinstance(bias, BiasTable):
        return 'flex'
    if bias is None or not bias.requires_grad or bias.ndim <= 2:
        return 'whole'
    return kernel_that_learns(device)


def pick(x: Tensor, places: Tensor) -> Tensor:
    """Some tokens (B, T, D) of each sample of x (B, N, D), which are at `places` (B, T)."""
    starts = torch.arange(0, x.shape[0] * x.shape[1], x.shape[1], device=x.device)
    return x.flatten(0, 1).index_select(0, (places + starts[:, None]).flatten()).unflatten(0, places.shape)


def rows_of(bias: Tensor, queries: Tensor) -> Tensor:
    """The rows (B, H, T, N) of a bias (H, N, N) that are of the queries (B, T) of each sample."""
    return bias.index_select(1, queries.flatten()).unflatten(1, queries.shape).transpose(0, 1)


def attend(bias: Bias | None, *projected: Tensor) -> Tensor:
    """Attention by PyTorch's kernels.

    Args:
        bias: Added to the logits, broadcastable to (B, H, T, N); or one that is made as it is needed.
        projected: Queries, keys and values (B, N, 3, H, D / H); or queries (B, T, 1, H, D / H), and keys and values
            (B, N, 2, H, D / H).

    Returns:
        (B, T, D).
    """
    q, k, v = (x.transpose(1, 2) for p in projected for x in p.unbind(2))  # each (B, H, T or N, D / H)
    if isinstance(bias, BiasRows):
        out = torch.empty_like(q)
        for rows, chunk in bias.chunks(MAX_CHUNK):
            out[:, :, rows] = F.scaled_dot_product_attention(q[:, :, rows], k, v, attn_mask=chunk[None].to(q.dtype))
    elif isinstance(bias, BiasTable):
        out = compiled_flex_attention()(q, k, v, score_mod=bias.score_mod())
    else:
        if bias is not None:
            bias = bias.to(q.dtype)  # the fused kernels want one dtype, and on CPUs four dimensions
            bias = bias[None] if bias.ndim == 3 else bias
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return out.transpose(1, 2).flatten(2)


@lru_cache(maxsize=1)
def compiled_flex_attention() -> Callable[..., Tensor]:
    """Compiled for each size and batch anew: for sizes in general torch 2.13 writes C++ that does not compile."""
    return torch.compile(flex_attention, dynamic=False)


class BiasedAttention(torch.autograd.Function):
    """Attention with the gradient of its bias, for CPUs, where no fused kernel gives one.

    PyTorch's fallback looks for rows of minus infinity besides, in four more passes over the logits, and multiplies
    bfloat16 in float32. No row of a learned bias is minus infinity. In bfloat16, products are rounded, as those of the
    reference under autocast; the bias is added and the softmax taken in float32. Heads are laid out one after another
    once, for the products of both passes, and a softmax and its gradient overwrite what they are taken of.

    Args of `apply`:
        bias: Added to the logits of every sample (H, T, N), or of each (B, H, T, N).
        projected: As of :func:`attend`.

    Returns:
        (B, T, D).
    """

    @staticmethod
    def forward(ctx, bias: Tensor, *projected: Tensor) -> Tensor:
        B, _, _, H, d = projected[0].shape
        laid_out = [p.permute(2, 0, 3, 1, 4).clone(memory_format=torch.contiguous_format) for p in projected]
        q, k, v = (heads.flatten(0, 1) for part in laid_out for heads in part)  # each (B * H, T or N, D / H)
        q.mul_(d**-0.5)
        logits = (q @ k.mT).unflatten(0, (B, H))  # (B, H, T, N)
        logits = logits.add_(bias) if logits.dtype == bias.dtype else logits + bias.float()
        probs = torch.softmax(logits, dim=-1, out=logits).to(v.dtype).flatten(0, 1)
        ctx.save_for_backward(probs, q, k, v)
        ctx.bias_dtype, ctx.per_sample, ctx.parts = bias.dtype, bias.ndim == 4, [len(part) for part in laid_out]
        return (probs @ v).unflatten(0, (B, H)).transpose(1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, ...]:
        probs, q, k, v = ctx.saved_tensors
        BH, T, d = q.shape
        H = grad.shape[2] // d
        grad = grad.unflatten(2, (H, d)).transpose(1, 2).reshape(BH, T, d)
        grad_logits = grad @ v.mT  # of probs, so far
        torch._softmax_backward_data(grad_logits, probs, -1, probs.dtype, grad_input=grad_logits)
        grad_bias = grad_logits.unflatten(0, (-1, H))
        grad_bias = grad_bias.to(ctx.bias_dtype) if ctx.per_sample else grad_bias.sum(dim=0, dtype=ctx.bias_dtype)
        grads = [q.new_empty(n, BH, T if i == 0 else k.shape[1], d) for i, n in enumerate(ctx.parts)]
        grad_q, grad_k, grad_v = (heads for part in grads for heads in part)
        torch.bmm(grad_logits, k, out=grad_q).mul_(d**-0.5)
        torch.bmm(grad_logits.mT, q, out=grad_k)
        torch.bmm(probs.mT, grad, out=grad_v)
        return grad_bias, *(part.unflatten(1, (-1, H)).permute(1, 3, 0, 2, 4).contiguous() for part in grads)
