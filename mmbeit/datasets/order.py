"""A random order that is not kept anywhere: where a thing is in it is computed."""

from functools import lru_cache

import numpy as np

ROUNDS = 12  # with 6, the orders of five things are not equally frequent
MASK = 2**64 - 1


def permuted(position: int, size: int, key: tuple[int, ...]) -> int:
    """The thing at a position of a random order of `size` things.

    An order of a billion things takes no memory, and a run that goes on in the middle of it has nothing to draw again.
    It is a Feistel network on the next power of four, walked until it hits one of the things (Black and Rogaway,
    "Ciphers with arbitrary finite domains").

    Args:
        position: From 0 to size - 1.
        size: How many things there are.
        key: Numbers, not negative, that the order depends on, such as seed and epoch.
    """
    half = max((size - 1).bit_length() + 1, 2) // 2
    low = (1 << half) - 1
    keys = _round_keys(key)
    while True:
        left, right = position >> half, position & low
        for round_key in keys:
            left, right = right, left ^ (_mix(right ^ round_key) & low)
        position = left << half | right
        if position < size:
            return position


@lru_cache(maxsize=256)
def _round_keys(key: tuple[int, ...]) -> list[int]:
    return np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64).tolist()


def _mix(x: int) -> int:
    """SplitMix64's last step."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)
