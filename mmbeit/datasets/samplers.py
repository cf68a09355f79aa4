"""Samplers that give every sample the seed of its augmentation, and the number of the epoch."""

from collections.abc import Iterator

import numpy as np
from mmengine.dataset import DefaultSampler, InfiniteSampler

from mmbeit.registry import DATA_SAMPLERS


class SampleIndex(int):
    """Index into a data set that carries into the worker process `seed`, an unsigned 32-bit number, and `epoch`."""

    seed: int
    epoch: int

    def __new__(cls, index: int, seed: int, epoch: int = 0) -> 'SampleIndex':
        self = super().__new__(cls, index)
        self.seed = seed
        self.epoch = epoch
        return self

    def __getnewargs__(self) -> tuple[int, int, int]:
        return int(self), self.seed, self.epoch


def seeded(index: int, *key: int, epoch: int = 0) -> SampleIndex:
    """The index, with the epoch, and with a seed that is a well mixed function of `key` and the index."""
    return SampleIndex(index, int(np.random.SeedSequence((*key, index)).generate_state(1)[0]), epoch)


@DATA_SAMPLERS.register_module()
class SeededSampler(DefaultSampler):
    """mmengine's `DefaultSampler`, in the same order; the seed follows from the run's seed, the epoch and the index."""

    def __iter__(self) -> Iterator[SampleIndex]:
        return (seeded(index, self.seed, self.epoch, epoch=self.epoch) for index in super().__iter__())


@DATA_SAMPLERS.register_module()
class SeededInfiniteSampler(InfiniteSampler):
    """mmengine's `InfiniteSampler`, in the same order; the seed follows from the run's seed and the position.

    The epoch is the number of passes over the data set that are complete.
    """

    def _infinite_indices(self) -> Iterator[SampleIndex]:
        for position, index in enumerate(super()._infinite_indices()):
            yield seeded(index, self.seed, position, epoch=position // self.size)
