"""Attention with a bias that learns, on CPUs, against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from mmbeit.layers.attention import Attention, attend_with_bias_gradient

B, N, H, D = 2, 11, 3, 12


def drawn(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    shapes = [(B, H, N, D // H)] * 3 + [(H, N, N)]
    return tuple(torch.randn(shape).to(dtype).requires_grad_() for shape in shapes)


def results(attend, dtype: torch.dtype) -> list[torch.Tensor]:
    inputs = drawn(dtype)
    out = attend(*inputs)
    return [out, *torch.autograd.grad(out.square().sum(), inputs)]


def pytorch(q, k, v, bias):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_outputs_and_gradients_are_those_of_pytorch(dtype, tolerance):
    for ours, expected in zip(results(attend_with_bias_gradient, dtype), results(pytorch, dtype), strict=True):
        assert (ours - expected).norm() <= tolerance * expected.norm()


def test_bfloat16_is_rounded_as_in_the_reference_under_autocast():
    """There products come out in bfloat16, the bias is added and the softmax taken in float32."""
    exact = results(pytorch, torch.float64)

    def reference(q, k, v, bias):
        with torch.autocast('cpu', torch.bfloat16):
            return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias).softmax(dim=-1) @ v

    def ours(q, k, v, bias):
        with torch.autocast('cpu', torch.bfloat16):
            return attend_with_bias_gradient(q.bfloat16(), k.bfloat16(), v.bfloat16(), bias)

    for out, rounded, expected in zip(
        results(ours, torch.float32), results(reference, torch.float32), exact, strict=True
    ):
        error, allowed = ((x - expected).norm() / expected.norm() for x in (out, rounded))
        assert error <= max(1.5 * allowed, 1e-2) < 0.1
    assert results(ours, torch.float32)[0].dtype == torch.bfloat16


@pytest.mark.parametrize('learns', [True, False])
def test_a_bias_that_learns_and_one_that_does_not_give_the_same(learns):
    torch.manual_seed(0)
    attention, x, bias = Attention(D, H), torch.randn(B, N, D), torch.randn(H, N, N)
    expected = attention(x, bias)
    torch.testing.assert_close(attention(x, bias.clone().requires_grad_(learns)), expected)
