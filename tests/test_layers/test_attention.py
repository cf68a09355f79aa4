"""Attention with a bias that learns, on CPUs, against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from mmbeit.layers.attention import Attention, attend_with_bias_gradient

B, N, H, D = 2, 11, 3, 12


def drawn(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(B, H, N, D // H, dtype=dtype, requires_grad=True) for _ in range(3))
    return q, k, v, torch.randn(H, N, N, dtype=dtype, requires_grad=True)


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


def test_under_autocast_pytorch_attends_which_does_not_round_the_logits(monkeypatch):
    monkeypatch.setattr('mmbeit.layers.attention.attend_with_bias_gradient', None)
    x, bias = torch.randn(B, N, D), torch.randn(H, N, N, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16):
        Attention(D, H)(x, bias).sum().backward()
    assert bias.grad.abs().sum() > 0
    with pytest.raises(TypeError):
        Attention(D, H)(x, bias)


@pytest.mark.parametrize('learns', [True, False])
def test_a_bias_that_learns_and_one_that_does_not_give_the_same(learns):
    torch.manual_seed(0)
    attention, x, bias = Attention(D, H), torch.randn(B, N, D), torch.randn(H, N, N)
    expected = attention(x, bias)
    torch.testing.assert_close(attention(x, bias.clone().requires_grad_(learns)), expected)
