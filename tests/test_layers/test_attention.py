"""Attention with a bias that learns, on CPUs, against PyTorch's own."""

import pytest
import torch
from torch import nn

from mmbeit.layers.attention import Attention, BiasedAttention, attend, pick
from mmbeit.layers.position import BiasRows, RelativePositionBias

B, N, H, D = 2, 11, 3, 12


def drawn(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(shape).to(dtype).requires_grad_() for shape in ((H, N, N), (B, N, 3, H, D // H)))


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

    def reference(bias, qkv):
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        with torch.autocast('cpu', torch.bfloat16):
            out = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias).softmax(dim=-1) @ v
        return out.transpose(1, 2).flatten(2)

    def ours(bias, qkv):
        with torch.autocast('cpu', torch.bfloat16):
            return BiasedAttention.apply(bias, qkv.bfloat16())

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


def with_gradients(attention, x, bias, keep=None):
    x, bias = x.requires_grad_(), bias.requires_grad_()
    out = attention(x, bias, keep)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out, *torch.autograd.grad((out * weights).sum(), (x, bias))


@pytest.mark.parametrize('shape', [(H, N, N), (1, N, N), (1, H, N, N), (B, 1, N, N), (B, H, N, N)])
def test_a_bias_of_any_shape_has_its_gradient(shape, monkeypatch):
    torch.manual_seed(0)
    attention, x, bias = Attention(D, H).double(), torch.randn(B, N, D).double(), torch.randn(shape).double()
    ours = with_gradients(attention, x, bias)
    monkeypatch.setattr(BiasedAttention, 'apply', attend)
    torch.testing.assert_close(ours, with_gradients(attention, x, bias))


@pytest.mark.parametrize('own', [True, False])
def test_some_tokens_come_out_as_they_do_with_all(own, monkeypatch):
    torch.manual_seed(0)
    attention, x, bias = Attention(D, H).double(), torch.randn(B, N, D).double(), torch.randn(H, N, N).double()
    keep = torch.tensor([[0, 3, 4, 10], [7, 0, 0, 0]])  # one may be asked for more than once
    expected = with_gradients(lambda x, bias, keep: pick(attention(x, bias), keep), x, bias, keep)
    if not own:
        monkeypatch.setattr(BiasedAttention, 'apply', attend)
    torch.testing.assert_close(with_gradients(attention, x, bias, keep), expected)
    torch.testing.assert_close(attention(x, None, keep), pick(attention(x), keep))


def test_some_tokens_of_a_large_image_likewise():
    """Of one whose bias is made row by row."""
    torch.manual_seed(0)
    attention, bias = Attention(D, H).double(), RelativePositionBias((2, 5), H).double()
    nn.init.normal_(bias.table)
    x, keep = torch.randn(B, N, D).double(), torch.tensor([[0, 3], [7, 10]])
    rows = BiasRows(bias.table.detach(), (2, 5))
    torch.testing.assert_close(attention(x, rows, keep), pick(attention(x, bias()), keep))


def test_tokens_are_picked_from_each_sample():
    x = torch.arange(12).view(2, 3, 2)
    assert pick(x, torch.tensor([[2, 0], [1, 1]])).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
