"""Attention against its textbook form, and what it finds that a mean does not."""

import pytest
import torch
import torch.nn.functional as F
from test_probing.planted import NUM_CLASSES, planted, stored, task

from mmbeit.probing.attentive import AttentiveHead, AttentiveProbe
from mmbeit.probing.linear import LinearProbe
from mmbeit.probing.task import Labelled
from mmbeit.probing.training import Training, score

SHORT = Training(epochs=10, rates=(1e-2, 3e-2), batch_size=32)


def test_head_is_attention_of_one_query_with_keys_and_values_of_every_patch():
    draw = torch.Generator().manual_seed(0)
    head = AttentiveHead(12, NUM_CLASSES, num_heads=3, generator=draw)
    x, query, keys, values = (torch.randn(*shape, generator=draw) for shape in ((5, 7, 12), (12,), (12, 12), (12, 12)))
    with torch.no_grad():
        head.query.copy_((query.view(3, 4, 1) * keys.view(3, 4, 12)).sum(1) / 2)  # 2 is the root of 4 channels
        head.value.copy_(values.view(3, 4, 12).transpose(1, 2))
    q = query.view(1, 3, 1, 4).expand(5, -1, -1, -1)
    k, v = ((x @ matrix.T).unflatten(2, (3, 4)).transpose(1, 2) for matrix in (keys, values))
    pooled = F.scaled_dot_product_attention(q, k, v).flatten(1)
    torch.testing.assert_close(head(x), head.classifier(pooled)[None], rtol=1e-5, atol=1e-5)


def test_heads_that_do_not_share_the_width():
    with pytest.raises(ValueError, match=r'dim \(24\) must be divisible by num_heads \(5\)'):
        AttentiveHead(24, 3, 5, torch.Generator())


def hidden_patch(count, seed):
    """Patches of noise, one of which, anywhere, has a mark and the class. The others have classes, but no mark."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_CLASSES, (count,), generator=draw)
    patches = 0.1 * torch.randn(count, 9, 8, generator=draw)
    others = torch.randint(NUM_CLASSES, (count, 9), generator=draw)
    place = torch.randint(9, (count,), generator=draw)
    others[torch.arange(count), place] = labels
    patches[..., :NUM_CLASSES] += F.one_hot(others, NUM_CLASSES)
    patches[torch.arange(count), place, NUM_CLASSES] += 1
    return Labelled(stored(patches[:50], patches[50:]), labels)


def test_it_finds_the_patch_that_matters():
    train, val = hidden_patch(400, 1), hidden_patch(200, 2)
    training = Training(epochs=20, rates=(1e-2, 3e-2), batch_size=32)
    measured = AttentiveProbe(block=2, training=training, num_heads=2).measure(task(train, val))
    assert measured.probe == 'attentive' and measured.blocks == [2] and measured.best == 2
    assert measured.val[0] > 95
    pooled = [
        Labelled(stored(next(data.features.batches(data.rows, 1000))[1].mean(1, keepdim=True)), data.labels)
        for data in (train, val)
    ]
    assert LinearProbe(training).measure(task(*pooled)).val[0] < 75


def test_a_sweep_is_separate_trainings():
    given = task(hidden_patch(100, 1), hidden_patch(20, 2))
    probe = AttentiveProbe(0, SHORT, num_heads=2)
    sweep, _ = probe.fit(given, given.fit_rows, SHORT.rates)
    for rate in SHORT.rates:
        alone, _ = probe.fit(given, given.fit_rows, [rate])
        for name, parameter in alone[rate].named_parameters():
            torch.testing.assert_close(sweep[rate].get_parameter(name), parameter, rtol=0, atol=0)


def test_held_out_images_are_not_learned_from_while_something_is_chosen():
    # There is nothing to learn, but room enough to remember every image.
    given = task(*(planted(120, (4, 200), strength=0, seed=seed) for seed in (1, 2)))
    probe = AttentiveProbe(0, Training(epochs=30, rates=(1e-2,), batch_size=32), num_heads=2)
    assert max(map(max, probe.measure(given).held_out)) < 65
    assert probe.measure(given._replace(val=given.train)).val[0] > 95


def test_all_training_images_are_learned_from_in_the_end():
    given = task(hidden_patch(100, 1), hidden_patch(40, 2))
    probe = AttentiveProbe(0, SHORT, num_heads=2)
    measured = probe.measure(given)
    accuracies = []
    for rows in (given.train.rows, given.fit_rows):
        heads, prepare = probe.fit(given, rows, measured.chosen)
        accuracies.append(score(heads, given.val, given.val.rows, prepare, 64).accuracy.tolist())
    assert measured.val == pytest.approx(accuracies[0]) and accuracies[0] != accuracies[1]


def test_a_seed_gives_the_same_again_and_nothing_is_chosen_with_val():
    given = task(hidden_patch(100, 1), hidden_patch(40, 2))
    probe = AttentiveProbe(0, SHORT, num_heads=2)
    one = probe.measure(given)
    assert one == probe.measure(given)
    assert one.held_out != probe.measure(given._replace(seed=1)).held_out
    other = probe.measure(given._replace(val=given.val._replace(labels=given.val.labels.roll(1))))
    assert (other.held_out, other.chosen) == (one.held_out, one.chosen) and other.val != one.val
