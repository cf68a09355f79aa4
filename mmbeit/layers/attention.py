"""Self-attention with one additive bias."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmbeit.layers.position import BiasRows

MAX_CHUNK = 2**25  # bytes of the bias that is there at a time, where it is made row by row


class Attention(nn.Module):
    """Multi-head self-attention. q and v carry a bias; k needs none, because it would cancel in the softmax.

    Args:
        dim: Width D of the tokens.
        num_heads: Number of heads H; divides `dim`.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'dim ({dim}) must be divisible by num_heads ({num_heads})')
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, attn_bias: Tensor | BiasRows | None = None, keep: Tensor | None = None) -> Tensor:
        """Attend from every token to every token.

        Args:
            x: Tokens (B, N, D).
            attn_bias: Added to the attention logits, broadcastable to (B, H, N, N); or rows of it, made as they are
                needed.
            keep: Which tokens of the batch come out, (T,) long in [0, B*N); None: all.

        Returns:
            Tokens (B, N, D), or those to keep (T, D).
        """
        B, N, D = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).view(B, N, 3, self.num_heads, -1)
        if isinstance(attn_bias, Tensor) and attn_bias.requires_grad and attn_bias.ndim == 3 and x.device.type == 'cpu':
            out = BiasedAttention.apply(qkv, attn_bias)
        else:
            out = attend(qkv, attn_bias)
        return self.proj(out if keep is None else out.flatten(0, 1)[keep])


def attend(qkv: Tensor, bias: Tensor | BiasRows | None) -> Tensor:
    """Attention by PyTorch's kernels.

    Args:
        qkv: (B, N, 3, H, D / H).
        bias: Added to the logits, broadcastable to (B, H, N, N); or rows of it.

    Returns:
        (B, N, D).
    """
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, N, D / H)
    if isinstance(bias, BiasRows):
        out = torch.empty_like(q)
        for rows, chunk in bias.chunks(MAX_CHUNK):
            out[:, :, rows] = F.scaled_dot_product_attention(q[:, :, rows], k, v, attn_mask=chunk[None].to(q.dtype))
    else:
        if bias is not None:
            bias = bias.to(q.dtype)  # the fused kernels want one dtype, and on CPUs four dimensions
            bias = bias[None] if bias.ndim == 3 else bias
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return out.transpose(1, 2).flatten(2)


class BiasedAttention(torch.autograd.Function):
    """Attention with the gradient of its bias, for CPUs, where no fused kernel gives one.

    PyTorch's fallback looks for rows of minus infinity besides, in four more passes over the logits, and multiplies
    bfloat16 in float32. No row of a learned bias is minus infinity. In bfloat16, products are rounded, as those of the
    reference under autocast; the bias is added and the softmax taken in float32. Heads are laid out one after another
    once, for the products of both passes, and a softmax and its gradient overwrite what they are taken of.

    Args of `apply`:
        qkv: (B, N, 3, H, D / H).
        bias: Added to the logits of every sample, (H, N, N).

    Returns:
        (B, N, D).
    """

    @staticmethod
    def forward(ctx, qkv: Tensor, bias: Tensor) -> Tensor:
        B, N, _, H, d = qkv.shape
        q, k, v = qkv.permute(2, 0, 3, 1, 4).clone(memory_format=torch.contiguous_format).view(3, B * H, N, d)
        q.mul_(d**-0.5)
        logits = (q @ k.mT).view(B, H, N, N)
        logits = logits.add_(bias) if logits.dtype == bias.dtype else logits + bias.float()
        probs = torch.softmax(logits, dim=-1, out=logits).to(v.dtype)
        ctx.save_for_backward(q, k, v, probs)
        ctx.bias_dtype = bias.dtype
        return (probs.flatten(0, 1) @ v).view(B, H, N, d).transpose(1, 2).reshape(B, N, H * d)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v, probs = ctx.saved_tensors
        B, H, N, _ = probs.shape
        d = q.shape[-1]
        grad = grad.view(B, N, H, d).transpose(1, 2).reshape(B * H, N, d)
        grad_logits = (grad @ v.mT).view(B, H, N, N)  # of probs, so far
        torch._softmax_backward_data(grad_logits, probs, -1, probs.dtype, grad_input=grad_logits)
        grad_bias = grad_logits.sum(dim=0, dtype=ctx.bias_dtype)
        grad_logits, probs = grad_logits.flatten(0, 1), probs.flatten(0, 1)
        grad_qkv = torch.empty(3, B * H, N, d, dtype=q.dtype)
        torch.bmm(grad_logits, k, out=grad_qkv[0]).mul_(d**-0.5)
        torch.bmm(grad_logits.mT, q, out=grad_qkv[1])
        torch.bmm(probs.mT, grad, out=grad_qkv[2])
        return grad_qkv.view(3, B, H, N, d).permute(1, 3, 0, 2, 4).contiguous(), grad_bias
