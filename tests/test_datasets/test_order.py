import itertools

import numpy as np
import pytest

from mmbeit.datasets.order import permuted


def order(size, *key):
    return [permuted(i, size, key) for i in range(size)]


@pytest.mark.parametrize('size', [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000])
def test_everything_comes_once(size):
    assert sorted(order(size, 3)) == list(range(size))


def test_orders_differ_by_every_number_of_the_key():
    orders = [tuple(order(50, *key)) for key in itertools.product(range(3), range(4))]
    assert len(set(orders)) == 12


def test_a_place_among_billions_is_found_at_once():
    size = 3_000_000_019
    things = {permuted(i, size, (0,)) for i in range(2000)}
    assert len(things) == 2000 and all(0 <= thing < size for thing in things)
    assert 0.45 < np.mean([thing < size / 2 for thing in things]) < 0.55


@pytest.mark.parametrize('size', [4, 5])
def test_all_orders_are_about_as_frequent(size):
    """Of every pair of places: where it goes to, in 4000 orders."""
    counts = np.zeros((size, size, size, size))
    for key in range(4000):
        things = order(size, key)
        for i, j in itertools.permutations(range(size), 2):
            counts[i, j, things[i], things[j]] += 1
    expected = 4000 / (size * (size - 1))
    for i, j in itertools.permutations(range(size), 2):
        seen = counts[i, j][~np.eye(size, dtype=bool)]
        assert np.sum((seen - expected) ** 2 / expected) < 60  # chi-squared of 11 or 19 degrees of freedom
