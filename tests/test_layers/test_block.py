"""Stochastic depth: what is dropped is not computed, and nothing else changes."""

import pytest
import torch
from builders import randomize
from torch import Tensor

from mmbeit.layers.attention import pick
from mmbeit.layers.attn_bias import padding_bias
from mmbeit.layers.block import Block, DropPath, Kept
from mmbeit.layers.multiway import MultiwayBlock

B, N, D, H = 8, 5, 24, 3
RATE = 0.5


def build(rate: float = RATE) -> Block:
    return randomize(Block(D, H, 48, layer_scale=0.1, drop_path=rate)).double().train()


def by_formula(block: Block, x: Tensor, bias: Tensor, counts: list[Tensor]) -> Tensor:
    """Every branch computed for all, and multiplied by 0 or by 1 / (1 - rate)."""
    factors = [count.double()[:, None, None] / (1 - RATE) for count in counts]
    x = x + factors[0] * block.scale1(block.attn(block.norm1(x), bias))
    return x + factors[1] * block.scale2(block.mlp(block.norm2(x)))


def drawn(seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    return [torch.rand(B) >= RATE for _ in range(2)]


def gradients(out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(out.square().sum(), inputs)


@pytest.mark.parametrize('seed', range(4))
def test_outputs_and_gradients_are_those_of_multiplying_by_zero(seed):
    block = build()
    x, bias = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((B, N, D), (H, N, N)))
    inputs = x, bias, *block.parameters()
    counts = drawn(seed)
    assert all(0 < count.sum() < B for count in counts)
    expected = by_formula(block, x, bias, counts)
    torch.manual_seed(seed)
    out = block(x, bias)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients(out, *inputs), gradients(expected, *inputs))


@pytest.mark.parametrize('seed', range(4))
def test_of_some_tokens_likewise(seed):
    block = build()
    x, bias = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((B, N, D), (H, N, N)))
    keep = torch.rand(B, N).argsort(dim=1)[:, :2]
    inputs = x, bias, *block.parameters()
    expected = pick(by_formula(block, x, bias, drawn(seed)), keep)
    torch.manual_seed(seed)
    sizes = sizes_of(block)
    out = block(x, bias, keep)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients(out, *inputs), gradients(expected, *inputs))
    first, second = (int(count.sum()) for count in drawn(seed))
    assert sizes == [(first, N), (first, 2), (second, 2), (second, 2)]


def sizes_of(block: Block) -> list[tuple[int, int]]:
    """How many samples, and tokens of each, come out of each part, as it runs."""
    sizes = []
    for part in (block.norm1, block.attn, block.norm2, block.mlp):
        part.register_forward_hook(lambda module, args, out: sizes.append(tuple(out.shape[:2])))
    return sizes


def test_branches_run_for_the_samples_that_are_kept():
    block = build()
    sizes = sizes_of(block)
    x, counts = torch.randn(B, N, D, dtype=torch.float64), [int(count.sum()) for count in drawn(0)]
    torch.manual_seed(0)
    block(x)
    assert [size for size, _ in sizes] == [counts[0], counts[0], counts[1], counts[1]] and max(counts) < B


def test_samples_that_are_left_out_and_samples_that_do_not_count_come_to_the_same():
    x, branch = torch.randn(2, B, N, D, dtype=torch.float64)
    counts = drawn(0)[0]
    some, all_ = Kept(counts.nonzero()[:, 0], weight=3.0), Kept(counts=counts, weight=3.0)
    torch.testing.assert_close(some.add(x, some.of(branch)), all_.add(x, all_.of(branch)))
    assert torch.equal(all_.add(x, branch)[~counts], x[~counts])


def test_a_batch_that_is_dropped_as_a_whole_still_gives_every_parameter_a_gradient(monkeypatch):
    block, x = build(), torch.randn(B, N, D, dtype=torch.float64)
    monkeypatch.setattr(torch, 'rand', lambda size, **_: torch.zeros(size))
    for keep in (None, torch.tensor([[2]] * B)):
        out = block(x, None, keep)
        assert torch.equal(out, x if keep is None else pick(x, keep))
        assert all((gradient == 0).all() for gradient in gradients(out, *block.parameters()))


def test_a_batch_that_is_kept_as_a_whole_is_weighted(monkeypatch):
    block, x = build(), torch.randn(B, N, D, dtype=torch.float64)
    monkeypatch.setattr(torch, 'rand', lambda size, **_: torch.ones(size))
    torch.testing.assert_close(block(x), by_formula(block, x, None, [torch.ones(B)] * 2))


def test_nothing_is_drawn_without_training_or_a_rate():
    for module in (DropPath(0.5).eval(), DropPath(0.0).train()):
        state = torch.get_rng_state()
        assert module(B, torch.device('cpu')) == (None, None, 1.0)
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_under_autocast_the_sum_keeps_the_dtype_of_the_tokens(dtype):
    block = randomize(Block(D, H, 48, layer_scale=0.1, drop_path=RATE)).train()
    x = torch.randn(B, N, D).to(dtype)
    with torch.autocast('cpu', torch.bfloat16):
        torch.manual_seed(0)
        assert block(x).dtype == dtype


def test_both_modalities_of_a_sample_are_dropped_together_with_its_padding():
    """Of a sample whose branches are kept, the outcome is that of twice the branches in a batch of its own."""
    block = randomize(MultiwayBlock(D, H, 48, drop_path=RATE)).double().train()
    torch.manual_seed(1)
    streams = {name: torch.randn(B, n, D, dtype=torch.float64) for name, n in (('vision', 4), ('text', 3))}
    padding = torch.rand(B, 3) < 0.4
    padding[:, 0] = False
    counts = drawn(0)
    torch.manual_seed(0)
    out, _ = block(streams, padding_bias(padding, 7, torch.float64))
    block.eval()
    for i in range(B):
        one = {name: x[i : i + 1] for name, x in streams.items()}
        bias = padding_bias(padding[i : i + 1], 7, torch.float64)
        normed = block.norm1(one)
        branch, _ = block.attn(normed, normed, bias)
        one = {name: x + counts[0][i] * 2 * branch[name] for name, x in one.items()}
        branch = block.mlp(block.norm2(one))
        for name, x in one.items():
            torch.testing.assert_close(out[name][i : i + 1], x + counts[1][i] * 2 * branch[name])
