"""The sweep finds what is planted, and is many separate trainings at once."""

import dataclasses

import pytest
import torch
from test_probing.planted import BLOCK, NUM_CLASSES, planted, planted_task, stored, task
from torch import nn

from mmbeit.models.heads.linear_probe import LinearProbeHead
from mmbeit.probing import linear
from mmbeit.probing.features import shuffle
from mmbeit.probing.linear import LinearProbe
from mmbeit.probing.standardize import Standardize
from mmbeit.probing.task import Choice, Labelled
from mmbeit.probing.training import Training, score

SHORT = Training(epochs=5, rates=(1e-3, 1e-2), batch_size=32)


def test_the_block_that_knows_the_class_is_found():
    measured = LinearProbe(Training(epochs=20, batch_size=32)).measure(planted_task())
    assert measured.probe == 'linear' and measured.blocks == [0, 1, 2, 3]
    assert measured.best == BLOCK and measured.val[BLOCK] > 90
    assert all(value < 60 for block, value in enumerate(measured.val) if block != BLOCK)
    assert len(measured.held_out) == 4 and all(len(row) == len(measured.settings) == 7 for row in measured.held_out)
    found = measured.of_block(BLOCK)
    assert found.val == measured.val[BLOCK] and found.held_out == max(measured.held_out[BLOCK])


@pytest.mark.parametrize(('standardize', 'scale'), [(True, 1.0), (False, 1.0), (False, 1e-7)])
def test_a_sweep_is_many_separate_trainings(standardize, scale):
    """At the smallest scale gradients are as small as the constant in AdamW, which then tells a sum from a mean."""
    probe, given = LinearProbe(SHORT, standardize), planted_task()
    every = next(given.train.features.batches(given.train.rows, 1000))[1]
    given = given._replace(train=given.train._replace(features=stored(scale * every)))
    sweep, _ = probe.fit(given, given.fit_rows, dict.fromkeys(SHORT.rates, range(4)))
    for rate in SHORT.rates:
        for block in range(4):
            alone, _ = probe.fit(given, given.fit_rows, {rate: [block]})
            for name in ('weight', 'bias'):
                together = sweep[rate].get_parameter(name)[block]
                torch.testing.assert_close(together, alone[rate].get_parameter(name)[0], rtol=1e-4, atol=1e-6)
    assert (sweep[1e-3].weight - sweep[1e-2].weight).abs().max() > 1e-2
    some, _ = probe.fit(given, given.fit_rows, {1e-2: [3, 1]})
    torch.testing.assert_close(some[1e-2].weight, sweep[1e-2].weight[[3, 1]], rtol=1e-4, atol=1e-6)


def test_a_rate_is_trained_as_the_official_head_is():
    given = planted_task()
    probe = LinearProbe(dataclasses.replace(SHORT, rates=(1e-2,)), standardize=False)
    heads, _ = probe.fit(given, given.fit_rows, {1e-2: range(4)})
    # The official head takes tokens: with one patch, class token and mean are the two halves of a feature.
    head = LinearProbeHead(NUM_CLASSES, in_channels=6, num_blocks=4)
    draw = torch.Generator().manual_seed(given.seed)
    with torch.no_grad():
        for classify in head.classifiers:
            weight = torch.empty(12, NUM_CLASSES).normal_(0, 0.01, generator=draw.manual_seed(given.seed))
            classify.weight.copy_(weight.T)
            classify.bias.zero_()
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=1e-4)
    order = torch.Generator().manual_seed(given.seed)
    for epoch in range(5):
        for group in optimizer.param_groups:
            group['lr'] = 1e-2 * (1 + torch.cos(torch.tensor(torch.pi * epoch / 5))) / 2  # officially, by epoch
            group['lr'] = float(group['lr'])
        for rows, x in given.train.features.batches(shuffle(given.fit_rows, order), 32):
            samples = [Sample(label) for label in given.train.labels[rows]]
            optimizer.zero_grad()
            head.loss(list(x.unflatten(2, (2, 6)).transpose(0, 1)), samples)['loss'].backward()
            optimizer.step()
    for block, classify in enumerate(head.classifiers):
        torch.testing.assert_close(heads[1e-2].weight[block].T, classify.weight, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(heads[1e-2].bias[block, 0], classify.bias, rtol=1e-4, atol=1e-6)


class Sample:
    def __init__(self, label):
        self.gt_label = label.view(1)


def test_all_training_images_are_learned_from_in_the_end_every_block_at_its_rate(monkeypatch):
    monkeypatch.setattr(linear, 'choose', lambda _: Choice([1, 0, 0, 1], block=0))
    given = planted_task(strength=1.5)
    probe = LinearProbe(SHORT)
    measured = probe.measure(given)
    assert measured.chosen == [1e-2, 1e-3, 1e-3, 1e-2] and len(set(measured.val)) > 2
    for block in range(4):
        heads, prepare = probe.fit(given, given.train.rows, {measured.chosen[block]: [block]})
        val = score(heads, given.val, given.val.rows, lambda x, p=prepare: p(x), 64)
        assert val.accuracy.tolist() == pytest.approx([measured.val[block]])


def test_nothing_is_chosen_with_the_images_that_are_reported_on():
    given = planted_task(strength=1.5)
    one = LinearProbe(SHORT).measure(given)
    other = LinearProbe(SHORT).measure(given._replace(val=given.val._replace(labels=given.val.labels.roll(1))))
    assert (one.held_out, one.chosen, one.best) == (other.held_out, other.chosen, other.best)
    assert one.val != other.val


def test_held_out_images_are_not_learned_from_while_something_is_chosen():
    # There is nothing to learn, but room enough to remember every image.
    given = task(*(planted(120, (4, 200), strength=0, seed=seed) for seed in (1, 2)))
    measured = LinearProbe(Training(epochs=30, rates=(1e-2,), batch_size=32)).measure(given)
    assert max(map(max, measured.held_out)) < 65
    remembered = LinearProbe(Training(epochs=30, rates=(1e-2,), batch_size=32)).measure(given._replace(val=given.train))
    assert min(remembered.val) > 95


def test_classifiers_do_not_depend_on_the_labels_of_other_rows():
    given = planted_task(strength=1.5)
    labels = given.train.labels.clone()
    labels[given.held_out] = labels[given.held_out].roll(1)
    probe = LinearProbe(SHORT)
    blocks = dict.fromkeys(SHORT.rates, range(4))
    one, _ = probe.fit(given, given.fit_rows, blocks)
    other, _ = probe.fit(given._replace(train=given.train._replace(labels=labels)), given.fit_rows, blocks)
    assert all(torch.equal(one[rate].weight, other[rate].weight) for rate in SHORT.rates)


def test_a_seed_gives_the_same_again_and_another_one_something_else():
    runs = [LinearProbe(SHORT).measure(planted_task(seed, strength=1.5)) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_the_scale_of_features_does_not_matter_when_they_are_standardised():
    train, val = planted(240, seed=1), planted(120, seed=2)
    scale, shift = torch.logspace(-2, 2, 12), torch.linspace(-50, 50, 12)

    def changed(data):
        every = next(data.features.batches(data.rows, 1000))[1]
        return Labelled(stored(every * scale + shift), data.labels)

    plain = LinearProbe(SHORT).measure(task(train, val))
    other = LinearProbe(SHORT).measure(task(changed(train), changed(val)))
    assert other.best == plain.best == BLOCK
    torch.testing.assert_close(torch.tensor(other.val), torch.tensor(plain.val), rtol=0, atol=2)
    raw = LinearProbe(SHORT, standardize=False).measure(task(changed(train), changed(val)))
    assert raw.val[BLOCK] < plain.val[BLOCK] - 10


def test_statistics_against_numpy():
    x = torch.randn(50, 3, 4) * torch.tensor([1e-3, 1.0, 1e3, 0.0]) + torch.tensor([500.0, 0.0, -1e4, 7.0])
    for dim in (0, (0, 1)):
        prepare = Standardize(x.split(7), dim)
        expected = x.double().numpy()
        std = (expected.var(dim) + 1e-6) ** 0.5
        torch.testing.assert_close(prepare.mean, torch.tensor(expected.mean(dim)).float())
        torch.testing.assert_close(prepare.std, torch.tensor(std).float(), rtol=1e-3, atol=0)
        assert prepare(x).isfinite().all() and float(prepare(x)[..., 3].abs().max()) < 1e-3


def test_scores_against_plain_torch():
    given = planted_task()
    heads, prepare = LinearProbe(SHORT).fit(given, given.fit_rows, {1e-3: [0], 1e-2: [2, 3]})
    found = score(heads, given.val, given.val.rows, prepare, 50)
    x = prepare(next(given.val.features.batches(given.val.rows, 1000))[1])
    logits = torch.cat([head(x) for head in heads.values()])
    for i in range(3):
        assert float(found.loss[i]) == pytest.approx(
            float(nn.functional.cross_entropy(logits[i], given.val.labels)), 1e-5
        )
        assert float(found.accuracy[i]) == pytest.approx(
            100 * float((logits[i].argmax(1) == given.val.labels).double().mean())
        )
