import math

import pytest
import torch
from builders import randomize
from torch.nn.functional import gelu, layer_norm, linear

from mmbeit.layers.attn_bias import caption_bias, padding_bias
from mmbeit.layers.multiway import MultiwayBlock, kept_tokens

DIM, HEADS, HIDDEN = 24, 3, 48
LENGTHS = dict(vision=5, text=4)


def block(**kwargs):
    return randomize(MultiwayBlock(DIM, HEADS, HIDDEN, **kwargs)).double()


def tokens(batch=2, **lengths):
    return {name: torch.randn(batch, n, DIM, dtype=torch.float64) for name, n in (lengths or LENGTHS).items()}


def by_formula(module, streams, blocked):
    """The block of BEiT-3, token by token and head by head. `blocked` (B, L, L) is True where nobody may look."""
    names = [(name, i) for name, x in streams.items() for i in range(x.shape[1])]
    state = module.state_dict()

    def apply(layer, at, x):
        weight, bias = (state[f'{at}.{part}'] for part in ('weight', 'bias'))
        return layer(x, weight, bias) if layer is linear else layer_norm(x, (len(weight),), weight, bias, eps=1e-5)

    out = {name: torch.empty_like(x) for name, x in streams.items()}
    for b in range(len(next(iter(streams.values())))):
        xs = [streams[name][b, i] for name, i in names]
        normed = [apply(layer_norm, f'norm1.{name}', x) for (name, _), x in zip(names, xs, strict=True)]
        q, k, v = (
            [apply(linear, f'attn.{part}.{name}', h) for (name, _), h in zip(names, normed, strict=True)]
            for part in 'qkv'
        )
        for row, (name, i) in enumerate(names):
            gathered = []
            for head in range(HEADS):
                at = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
                scale = math.sqrt(DIM // HEADS)
                weights = [
                    0.0 if blocked[b, row, col] else math.exp(q[row][at] @ k[col][at] / scale)
                    for col in range(len(names))
                ]
                gathered.append(sum(w * x[at] for w, x in zip(weights, v, strict=True)) / sum(weights))
            gathered = apply(layer_norm, f'attn.norm.{name}', torch.cat(gathered))
            x = xs[row] + apply(linear, f'attn.proj.{name}', gathered)
            h = apply(linear, f'mlp.{name}.fc1', apply(layer_norm, f'norm2.{name}', x))
            out[name][b, i] = x + apply(linear, f'mlp.{name}.fc2', apply(layer_norm, f'mlp.{name}.norm', gelu(h)))
    return out


@pytest.mark.parametrize('lengths', [dict(vision=4), dict(text=3), LENGTHS], ids=['vision', 'text', 'both'])
@torch.no_grad()
def test_block_by_formula(lengths):
    module, streams = block(), tokens(**lengths)
    length = sum(lengths.values())
    blocked = torch.zeros(2, length, length, dtype=torch.bool)
    torch.testing.assert_close(module(streams)[0], by_formula(module, streams, blocked))


@torch.no_grad()
def test_block_by_formula_with_padding_and_the_mask_of_captions():
    module, streams = block(), tokens()
    padding = torch.tensor([[False, False, False, True], [False, False, True, True]])
    bias = padding_bias(padding, 9, torch.float64) + caption_bias(5, 4, torch.float64)
    out, _ = module(streams, bias)
    torch.testing.assert_close(out, by_formula(module, streams, bias[:, 0] != 0))


@pytest.mark.parametrize('keep', [dict(vision=1, text=0), dict(vision=1, text=1), dict(vision=0), dict(text=2)])
@torch.no_grad()
def test_kept_tokens_are_what_they_are_without_keep(keep):
    module, streams = block(), tokens()
    ran = {}
    for name in streams:
        module.mlp[name].register_forward_hook(lambda _, args, __, name=name: ran.update({name: args[0].shape[1]}))
    out, present = module(streams, keep=keep)
    assert ran == {name: n for name in streams if (n := keep.get(name, LENGTHS[name]))}
    full, full_present = module(streams)
    torch.testing.assert_close(out, kept_tokens(full, keep))
    torch.testing.assert_close(present, full_present)


@pytest.mark.parametrize('rate', [0.0, 0.6])
def test_tokens_kept_of_each_sample_are_what_they_are_without_keep(rate):
    module, (x, text) = block(), tokens().values()
    module.drop_path.rate = rate
    places = torch.tensor([[4, 0, 2], [1, 1, 3]])
    found = {}
    for name, keep in (('kept', {'vision': places}), ('all', None)):
        torch.manual_seed(1)
        x, text = (t.detach().requires_grad_() for t in (x, text))
        out = module({'vision': x, 'text': text}, keep=keep)[0]
        if keep is None:
            out['vision'] = torch.stack([out['vision'][b, row] for b, row in enumerate(places)])
        loss = sum(o.sin().sum() for o in out.values())
        found[name] = out, torch.autograd.grad(loss, (x, text, *module.parameters()))
    torch.testing.assert_close(found['kept'], found['all'])


@torch.no_grad()
def test_tokens_may_come_one_after_the_other():
    module, streams = block(), tokens()
    bias = caption_bias(5, 4, torch.float64)
    expected, present = module(streams, bias)
    first, past = module({'vision': streams['vision'], 'text': streams['text'][:, :1]}, bias[..., :6, :6])
    outs = [first['text']]
    for i in range(1, 4):
        at = 5 + i
        out, past = module({'text': streams['text'][:, i : i + 1]}, bias[..., at : at + 1, : at + 1], past)
        outs.append(out['text'])
    torch.testing.assert_close(first['vision'], expected['vision'])
    torch.testing.assert_close(torch.cat(outs, dim=1), expected['text'])
    torch.testing.assert_close(past, present)


def test_a_branch_is_dropped_for_both_modalities_of_a_sample_at_once():
    module = block(drop_path=0.5).train()
    with torch.no_grad():
        for name in LENGTHS:  # of the two branches one is left
            module.mlp[name].fc2.weight.zero_()
            module.mlp[name].fc2.bias.zero_()
        streams = tokens(batch=4000, vision=1, text=1)
        out, _ = module(streams)
    dropped = {name: (out[name] == x).flatten(1).all(dim=1) for name, x in streams.items()}
    assert torch.equal(dropped['vision'], dropped['text'])
    assert dropped['text'].float().mean().item() == pytest.approx(0.5, abs=0.03)
    module.eval()
    with torch.no_grad():
        branch = {name: x - streams[name] for name, x in module(streams)[0].items()}
    for name, x in streams.items():
        kept = ~dropped[name]
        torch.testing.assert_close(out[name][kept], (x + 2 * branch[name])[kept])


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match=r'dim \(24\) must be divisible by num_heads \(5\)'):
        MultiwayBlock(24, 5, 48)
