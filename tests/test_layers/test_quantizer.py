from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from processes import run_ranks

from mmbeit.layers import quantizer
from mmbeit.layers.quantizer import (
    NormEMAQuantizer,
    code_usage,
    kmeans,
    nearest_codes,
    perplexity,
    sample_rows,
    sum_by_code,
)

DIM = 4


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


def around(centres, num, spread=0.05):
    """`num` unit tokens (1, num, E) near to each centre in turn."""
    centres = centres.repeat(num // len(centres), 1)
    return F.normalize(centres + spread * torch.randn(len(centres), centres.shape[1]), dim=1)[None]


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.fixture
def started():
    """A quantizer of 6 codes that needs no k-means."""
    return NormEMAQuantizer(6, DIM, kmeans_init=False)


# ---- one step ----


def test_step_against_a_loop_over_the_equations(started):
    tokens, before = torch.randn(2, 9, DIM), started.codebook.clone()
    out = started(tokens)
    z = F.normalize(tokens, dim=-1)
    sums, counts = torch.zeros(6, DIM), torch.zeros(6)
    for b in range(2):
        for n in range(9):
            distances = [(z[b, n] - code).square().sum().item() for code in before]
            i = distances.index(min(distances))
            assert out.ids[b, n] == i
            torch.testing.assert_close(out.vectors[b, n], before[i])
            sums[i] += z[b, n]
            counts[i] += 1
    torch.testing.assert_close(out.loss, (before[out.ids] - z).square().mean())
    for i in range(6):
        mean = F.normalize(sums[i] / counts[i], dim=0) if counts[i] else before[i]
        torch.testing.assert_close(started.codebook[i], F.normalize(0.99 * before[i] + 0.01 * mean, dim=0))
    torch.testing.assert_close(started.cluster_size, 0.01 * counts)


def test_gradient_passes_the_codes_by_and_goes_through_the_normalisation(started):
    started.commitment_weight = 0.0
    tokens = torch.randn(1, 5, DIM, requires_grad=True)
    weights = torch.randn(1, 5, DIM)
    (started(tokens).vectors * weights).sum().backward()
    (expected,) = torch.autograd.grad((F.normalize(tokens, dim=-1) * weights).sum(), tokens)
    torch.testing.assert_close(tokens.grad, expected)
    assert not list(started.parameters()), 'the codebook is a moving average: nothing for an optimizer'


def test_commitment_weight_scales_the_loss(started):
    tokens = torch.randn(1, 5, DIM)
    started.eval()
    loss = started(tokens).loss
    started.commitment_weight = 2.5
    torch.testing.assert_close(started(tokens).loss, 2.5 * loss)


def test_eval_changes_nothing_and_gives_the_ids_of_training(started):
    tokens, before = torch.randn(2, 9, DIM), snapshot(started)
    started.eval()
    out = started(tokens)
    assert all(torch.equal(value, before[name]) for name, value in started.state_dict().items())
    started.train()
    assert torch.equal(started(tokens).ids, out.ids)
    assert not torch.equal(started.codebook, before['codebook'])


@pytest.mark.parametrize('kmeans_init', [True, False])
def test_autocast_does_not_reach_it(kmeans_init):
    tokens, results = torch.randn(2, 30, DIM).bfloat16(), []
    for enabled in (True, False):
        torch.manual_seed(1)
        module = NormEMAQuantizer(16, DIM, kmeans_init=kmeans_init)
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            results.append([*module(tokens if enabled else tokens.float()), module.codebook])
    assert all(torch.equal(one, other) and one.dtype != torch.bfloat16 for one, other in zip(*results, strict=True))


@pytest.mark.parametrize('share', [-0.1, 1.0])
def test_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match=rf'revive_below \({share}\)'):
        NormEMAQuantizer(8, DIM, revive_below=share)


# ---- parts ----


def test_nearest_codes_in_chunks(monkeypatch):
    tokens, codebook = unit(50, DIM), torch.randn(7, DIM)  # of different lengths
    expected = torch.cdist(tokens, codebook).argmin(dim=1)
    assert torch.equal(nearest_codes(tokens, codebook), expected)
    monkeypatch.setattr(quantizer, 'CHUNK', 3 * 7 + 1)
    assert torch.equal(nearest_codes(tokens, codebook), expected)


def test_nearest_code_is_the_first_of_equal_ones():
    codebook = torch.eye(DIM).repeat(2, 1)
    assert nearest_codes(codebook, codebook).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_sums_are_those_of_one_hot_vectors():
    tokens, ids = torch.randn(40, DIM), torch.randint(5, (40,))
    sums, counts = sum_by_code(tokens, ids, 6)
    one_hot = F.one_hot(ids, 6).float()
    torch.testing.assert_close(sums, one_hot.t() @ tokens)
    assert torch.equal(counts, one_hot.sum(dim=0))


def test_sampled_rows_differ_if_there_are_enough():
    rows = torch.arange(10.0).view(10, 1)
    assert sorted(sample_rows(rows, 10).flatten().tolist()) == list(range(10))
    many = sample_rows(rows, 200).flatten()
    assert len(many) == 200 and set(many.tolist()) == set(range(10))


@pytest.mark.parametrize(
    ('counts', 'expected'), [([5, 5, 5, 5], 4), ([7, 0, 0, 0], 1), ([3, 3, 0, 0], 2), ([1, 3, 0, 0], 4 / 3**0.75)]
)
def test_perplexity_is_the_number_of_equally_used_codes(counts, expected):
    assert perplexity(torch.tensor(counts)).item() == pytest.approx(expected)


def test_code_usage_is_a_percentage():
    assert [code_usage(torch.tensor(counts)).item() for counts in ([0, 0], [7, 0, 1, 0], [1, 2])] == [0, 50, 100]


# ---- start ----


def test_kmeans_finds_the_centres_that_its_first_means_touch():
    centres = torch.eye(DIM)
    tokens = around(centres, 400)[0]
    seed = 0
    touched = 0
    while touched < 4:
        seed += 1
        torch.manual_seed(seed)
        touched = len(sample_rows(tokens, 4).argmax(dim=1).unique())
    torch.manual_seed(seed)
    means = kmeans(tokens, 4)
    torch.testing.assert_close(means.norm(dim=1), torch.ones(4))
    means = means[means.argmax(dim=1).argsort()]
    expected = F.normalize(torch.stack([tokens[i::4].mean(dim=0) for i in range(4)]), dim=1)
    torch.testing.assert_close(means, expected)


def test_kmeans_of_fewer_tokens_than_means_gives_the_tokens():
    tokens = unit(5, DIM)
    means = kmeans(tokens, 12)
    assert means.shape == (12, DIM)
    torch.testing.assert_close(means, tokens[nearest_codes(means, tokens)])


def test_first_training_step_starts_the_codebook_once():
    module = NormEMAQuantizer(8, DIM)
    first, second = torch.randn(2, 20, DIM), torch.randn(2, 20, DIM)
    random = snapshot(module)
    module.eval()
    module(first)
    assert module.initted == 0 and torch.equal(module.codebook, random['codebook'])
    module.train()
    torch.manual_seed(1)
    module(first)
    torch.manual_seed(1)
    z = F.normalize(first, dim=-1).flatten(0, 1)
    means = kmeans(z, 8)
    assert module.initted == 1
    expected = NormEMAQuantizer(8, DIM, kmeans_init=False)
    expected.codebook.copy_(means)
    expected(first)
    torch.testing.assert_close(module.codebook, expected.codebook)
    expected(second)
    module(second)
    torch.testing.assert_close(module.codebook, expected.codebook)


def test_loaded_codebook_is_not_started_again():
    """Nor is one kept that a file says was not started."""
    module, other = NormEMAQuantizer(8, DIM), NormEMAQuantizer(8, DIM)
    fresh = snapshot(other)
    module(torch.randn(2, 20, DIM))
    other.load_state_dict(module.state_dict())
    other(torch.randn(2, 20, DIM))
    assert F.cosine_similarity(other.codebook, module.codebook).min() > 0.99
    other.load_state_dict(fresh)
    other(torch.randn(2, 20, DIM))
    assert F.cosine_similarity(other.codebook, module.codebook).min() < 0.9


# ---- dead codes ----


def test_officially_a_code_that_nothing_is_near_to_stays_for_ever(started):
    started.codebook.copy_(F.normalize(torch.cat([torch.eye(DIM), -torch.eye(DIM)[:2]]), dim=1))
    for _ in range(300):
        started(around(torch.eye(DIM), 40))
    assert started.codebook[4:].tolist() == (-torch.eye(DIM)[:2]).tolist()
    assert started.cluster_size[4:].tolist() == [0, 0]


def test_revived_codes_are_tokens_of_the_batch_and_the_others_stay():
    module = NormEMAQuantizer(6, DIM, kmeans_init=False, revive_below=0.2)
    module.codebook.copy_(torch.cat([torch.eye(DIM), -torch.eye(DIM)[:2]]))
    tokens = around(torch.eye(DIM), 40)
    module(tokens)
    torch.testing.assert_close(module.codebook[:4], torch.eye(DIM), rtol=0, atol=0.01)
    same = (module.codebook[4:, None] - tokens).abs().amax(dim=-1) < 1e-6  # but for a second normalisation
    assert same.any(dim=1).all()
    assert len(module.codebook.unique(dim=0)) == 6
    torch.testing.assert_close(module.cluster_size[4:], torch.full((2,), 0.2 * 0.01 * 40 / 6))


def test_revived_code_stays_if_the_next_batch_uses_it_and_is_replaced_again_if_not():
    module = NormEMAQuantizer(6, DIM, kmeans_init=False, revive_below=0.2)
    module.codebook.copy_(torch.cat([torch.eye(DIM), -torch.eye(DIM)[:2]]))
    module(around(torch.eye(DIM), 40))
    first = module.codebook[4:].clone()
    module(torch.cat([around(torch.eye(DIM), 40), first[0].expand(1, 4, DIM)], dim=1))
    assert F.cosine_similarity(module.codebook[4], first[0], dim=0) > 0.999
    second = module.codebook[5].clone()
    module.codebook[5] = -torch.eye(DIM)[1]  # where no token is
    module(around(torch.eye(DIM), 40))
    assert module.codebook[5].max() > 0.9 and not torch.equal(module.codebook[5], second)


@pytest.mark.parametrize(('revive_below', 'low', 'high'), [(0.0, 0, 20), (0.1, 60, 100)])
def test_usage_while_the_tokens_move_away(revive_below, low, high):
    """As they do while an encoder learns: by more in a step than a code of the official quantizer follows."""
    module = NormEMAQuantizer(64, DIM, revive_below=revive_below)
    tokens, direction = unit(1, 1000, DIM), unit(DIM)
    for step in range(150):
        batch = tokens + 3 * min(step / 75, 1) * direction
        ids = module(batch[:, torch.randperm(1000)[:500]]).ids
    assert low <= code_usage(torch.bincount(ids.flatten(), minlength=64)) <= high


# ---- ranks ----

STEPS = """
from mmbeit.layers.quantizer import NormEMAQuantizer

def steps(batches, revive_below=0.0, seed=5):
    torch.manual_seed(7)
    module = NormEMAQuantizer(48, 4, revive_below=revive_below)
    states = []
    for i, batch in enumerate(batches):
        torch.manual_seed(seed * 100 + i)
        out = module(batch)
        states.append({name: value.clone() for name, value in module.state_dict().items()})
    return states
"""


@pytest.fixture(scope='module')
def batches():
    """Eight global batches of tokens with too few directions for the codebook."""
    torch.manual_seed(11)
    return [around(unit(40, DIM), 120, spread=0.02).view(4, 30, DIM) for _ in range(8)]


@pytest.fixture(scope='module')
def ranks(batches, tmp_path_factory):
    """What each of two ranks had after each step. The last batch is shared unequally."""
    folder = tmp_path_factory.mktemp('ranks')
    torch.save(batches, folder / 'batches')
    code = f"""
{STEPS}
shares = [batch[2 * rank : 2 * rank + 2] for batch in torch.load(folder / 'batches')]
shares[0] = torch.load(folder / 'batches')[0][[slice(0, 1), slice(1, 4)][rank]]
official, revived = steps(shares, seed=rank + 5), steps(shares, revive_below=0.3, seed=rank + 5)
torch.save((official, revived), folder / f'rank{{rank}}')
"""
    run_ranks(code, 2, folder)
    return [torch.load(folder / f'rank{rank}') for rank in (0, 1)]


def test_ranks_have_one_codebook_bit_for_bit(ranks):
    for one, other in zip(*ranks, strict=True):
        for ours, theirs in zip(one, other, strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize('revive_below', [0.0, 0.3])
def test_two_ranks_do_what_one_does_with_the_global_batch(revive_below, ranks, batches):
    scope = {'torch': torch}
    exec(STEPS, scope)
    expected = scope['steps'](batches, revive_below)
    found = ranks[0][bool(revive_below)]
    for ours, theirs in zip(found, expected, strict=True):
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=2e-6)
    jumps = [(after['codebook'] - before['codebook']).abs().max() for before, after in pairwise(found)]
    assert (max(jumps) > 0.1) == bool(revive_below)
