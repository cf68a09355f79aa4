"""Attention with a bias that learns, on CPUs, against PyTorch's own."""

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import flex_attention

from mmbeit.layers import attention as attention_module
from mmbeit.layers.attention import Attention, BiasedAttention, attend, pick
from mmbeit.layers.kernels import KERNELS, kernel_that_learns
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
def test_a_bias_of_any_shape_has_its_gradient(shape, set_kernel):
    torch.manual_seed(0)
    attention, x, bias = Attention(D, H).double(), torch.randn(B, N, D).double(), torch.randn(shape).double()
    ours = with_gradients(attention, x, bias)
    assert attention.kernel == 'own'
    set_kernel('whole')
    torch.testing.assert_close(ours, with_gradients(attention, x, bias))
    assert attention.kernel == 'whole'


@pytest.mark.parametrize('kernel', ['own', 'whole'])
def test_some_tokens_come_out_as_they_do_with_all(kernel, set_kernel):
    torch.manual_seed(0)
    attention, x, bias = Attention(D, H).double(), torch.randn(B, N, D).double(), torch.randn(H, N, N).double()
    keep = torch.tensor([[0, 3, 4, 10], [7, 0, 0, 0]])  # one may be asked for more than once
    expected = with_gradients(lambda x, bias, keep: pick(attention(x, bias), keep), x, bias, keep)
    set_kernel(kernel)
    torch.testing.assert_close(with_gradients(attention, x, bias, keep), expected)
    assert attention.kernel == kernel
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


# ---- the choice of the kernel ----


def run(attention, bias, learns=True):
    """The kernel that ran, and what came of it."""
    with torch.set_grad_enabled(learns):
        out = attention(torch.linspace(-1, 1, B * N * D).view(B, N, D).sin(), bias())
    return attention.kernel, out.detach()


def test_each_kernel_runs_where_it_can(set_kernel, monkeypatch):
    monkeypatch.setattr(attention_module, 'compiled_flex_attention', lambda: flex_attention)
    attention, bias = Attention(D, H), RelativePositionBias((2, 5), H)
    nn.init.normal_(bias.table)
    _, expected = run(attention, bias)
    for wanted, learning, fixed in (
        ('auto', 'own', 'whole'),
        ('whole', 'whole', 'whole'),
        ('own', 'own', 'whole'),
        ('rows', 'own', 'rows'),
        ('flex', 'own', 'flex'),
    ):
        set_kernel(wanted)
        for learns, kernel in ((True, learning), (False, fixed)):
            ran, out = run(attention, bias, learns)
            assert ran == kernel
            torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    assert set(KERNELS) == {'whole', 'own', 'rows', 'flex'}


def test_the_own_kernel_is_that_of_cpus():
    assert kernel_that_learns('cpu') == 'own' and kernel_that_learns('cuda') == 'whole'


def test_without_a_bias_there_is_nothing_to_choose(set_kernel):
    set_kernel('flex')
    assert run(Attention(D, H), lambda: None)[0] == 'whole'


def test_an_unknown_kernel_is_named(set_kernel):
    with pytest.raises(ValueError, match=r"'fast' is not one of \('auto', 'whole', 'own', 'rows', 'flex'\)"):
        set_kernel('fast')
