"""Self-attention with one additive bias."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, N, D / H)
        if isinstance(attn_bias, BiasRows):
            out = torch.empty_like(q)
            for rows, bias in attn_bias.chunks(MAX_CHUNK):
                out[:, :, rows] = F.scaled_dot_product_attention(q[:, :, rows], k, v, attn_mask=bias[None].to(q.dtype))
        elif attn_bias is not None and attn_bias.requires_grad and q.device.type == 'cpu':
            out = attend_with_bias_gradient(q, k, v, attn_bias)
        else:
            if attn_bias is not None:
                attn_bias = attn_bias.to(q.dtype)  # the fused kernels want one dtype, and on CPUs four dimensions
                attn_bias = attn_bias[None] if attn_bias.ndim == 3 else attn_bias
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_bias)
        out = out.transpose(1, 2).reshape(B, N, D)
        return self.proj(out if keep is None else out.flatten(0, 1)[keep])


def attend_with_bias_gradient(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """`scaled_dot_product_attention` for CPUs, where no fused kernel gives the gradient of a bias.

    PyTorch's fallback looks for rows of minus infinity besides, in four more passes over the logits, and multiplies
    bfloat16 in float32. No row of a learned bias is minus infinity. In bfloat16, products are rounded, as those of the
    reference under autocast; the bias is added and the softmax taken in float32.

    Args:
        q, k, v: (B, H, N, D / H).
        bias: Added to the logits, broadcastable to (B, H, N, N).
    """
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    logits = logits.add_(bias) if logits.dtype == bias.dtype else logits + bias.float()
    return logits.softmax(dim=-1).to(v.dtype) @ v
