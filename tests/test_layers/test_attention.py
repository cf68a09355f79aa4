"""Attention with a bias that learns, on CPUs, against PyTorch's own."""

import pytest
import torch

from mmbeit.layers.attention import Attention, BiasedAttention, attend

B, N, H, D = 2, 11, 3, 12


def drawn(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(shape).to(dtype).requires_grad_() for shape in ((B, N, 3, H, D // H), (H, N, N)))


def results(attention, dtype: torch.dtype) -> list[torch.Tensor]:
    inputs = drawn(dtype)
    out = attention(*inputs)
    return [out, *torch.autograd.grad(out.square().sum(), inputs)]


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_outputs_and_gradients_are_those_of_pytorch(dtype, tolerance):
    for ours, expected in zip(results(BiasedAttention.apply, dtype), results(attend, dtype), strict=True):
        assert (ours - expected).norm() <= tolerance * expected.norm()


def test_bfloat16_is_rounded_as_in_the_reference_under_autocast():
    """There products come out in bfloat16, the bias is added and the softmax taken in float32."""
    exact = results(attend, torch.float64)

    def reference(qkv, bias):
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        with torch.autocast('cpu', torch.bfloat16):
            out = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias).softmax(dim=-1) @ v
        return out.transpose(1, 2).flatten(2)

    def ours(qkv, bias):
        with torch.autocast('cpu', torch.bfloat16):
            return BiasedAttention.apply(qkv.bfloat16(), bias)

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


@pytest.mark.parametrize('shape', [(H, N, N), (1, N, N), (1, H, N, N), (B, 1, N, N)])
def test_a_bias_of_any_shape_has_its_gradient(shape):
    torch.manual_seed(0)
    attention, x, bias = Attention(D, H).double(), torch.randn(B, N, D).double(), torch.randn(shape).double()
    gradients = []
    for given in (bias.requires_grad_(), bias.broadcast_to(B, H, N, N)):  # of four dimensions, PyTorch's kernel has it
        gradients += torch.autograd.grad(attention(x, given).square().sum(), bias)
    torch.testing.assert_close(*gradients)
