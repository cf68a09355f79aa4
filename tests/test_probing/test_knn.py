"""Nearest neighbours against a naive reference."""

from collections import defaultdict
from math import exp

import pytest
import torch
from test_probing.planted import BLOCK, planted, planted_task, stored, task

from mmbeit.probing import knn
from mmbeit.probing.knn import KNNProbe, nearest, vote


def naive_votes(known, labels, asked, k, temperature):
    """Votes by class for each asked feature, one pair of features after the other, in double precision."""
    result = []
    for x in asked.double():
        cosines = [float(x @ y / x.norm() / y.norm()) for y in known.double()]
        votes = defaultdict(float)
        for i in sorted(range(len(known)), key=lambda i: -cosines[i])[:k]:
            votes[int(labels[i])] += exp(cosines[i] / temperature)
        result.append(votes)
    return result


@pytest.mark.parametrize('at_once', [3, 1000])
def test_neighbours_in_pieces_are_those_of_the_whole(monkeypatch, at_once):
    monkeypatch.setattr(knn, 'AT_ONCE', at_once)
    every, queries = torch.randn(30, 6), torch.randn(7, 6)
    rows = torch.tensor([i for i in range(30) if i % 4])
    found = nearest(queries, stored(every[:11], every[11:]), rows, 5)
    cosines = torch.nn.functional.cosine_similarity(queries[:, None], every[None], dim=2)
    cosines[:, 0::4] = -2
    expected = cosines.topk(5)
    torch.testing.assert_close(found.similarity, expected.values)
    assert torch.equal(found.rows, expected.indices)


@pytest.mark.parametrize('at_once', [7, 1000])
def test_accuracy_against_a_naive_reference(monkeypatch, at_once):
    monkeypatch.setattr(knn, 'AT_ONCE', at_once)
    given = task(planted(60, strength=1.5, seed=1), planted(40, strength=1.5, seed=2))
    ks = (1, 4, 20)
    measured = KNNProbe(ks).measure(given)
    train = next(given.train.features.batches(given.train.rows, 100))[1]
    val = next(given.val.features.batches(given.val.rows, 100))[1]

    def accuracy(rows, asked, labels, block, k):
        votes = naive_votes(train[rows, block], given.train.labels[rows], asked[:, block], k, 0.07)
        right = [max(v, key=v.get) == int(label) for v, label in zip(votes, labels, strict=True)]
        return 100 * sum(right) / len(right)

    for block in range(4):
        for k, value in zip(ks, measured.held_out[block], strict=True):
            held = given.held_out_rows
            assert value == pytest.approx(accuracy(given.fit_rows, train[held], given.train.labels[held], block, k))
        k = measured.chosen[block]
        assert measured.val[block] == pytest.approx(accuracy(given.train.rows, val, given.val.labels, block, k))


def test_votes_against_the_definition():
    labels = torch.tensor([[0, 2, 0], [1, 1, 2]])
    shares = vote(torch.tensor([[0.9, 0.8, -0.5], [1.0, 1.0, 1.0]]), labels, 4, 0.01)
    total = exp(90) + exp(80) + exp(-50)
    expected = [[(exp(90) + exp(-50)) / total, 0, exp(80) / total, 0], [0, 2 / 3, 1 / 3, 0]]
    torch.testing.assert_close(shares, torch.tensor(expected))


def test_the_block_that_knows_the_class_is_found():
    measured = KNNProbe().measure(planted_task())
    assert measured.probe == 'knn' and measured.setting == 'k'
    assert measured.best == BLOCK and measured.val[BLOCK] > 90
    assert all(value < 60 for block, value in enumerate(measured.val) if block != BLOCK)
    assert measured.settings == [1, 5, 10, 20, 100]  # 200 are more than there are
    assert measured == KNNProbe().measure(planted_task(seed=1)), 'nothing is drawn'


def test_more_neighbours_than_images():
    given = task(planted(8, seed=1), planted(8, seed=2))
    assert KNNProbe((20, 100)).measure(given).settings == [6]


def test_lengths_of_features_do_not_matter():
    given = planted_task(strength=1.5)
    every = next(given.train.features.batches(given.train.rows, 1000))[1]
    scaled = given._replace(train=given.train._replace(features=stored(every * torch.rand(240, 1, 1).add(0.5))))
    assert KNNProbe().measure(scaled).val == KNNProbe().measure(given).val
