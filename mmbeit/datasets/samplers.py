"""Samplers from which the seed of every sample's augmentation follows, and the number of the epoch."""

import logging
import sys
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import numpy as np
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Dataset, Sampler

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


class Process(NamedTuple):
    """Which process of a run this is.

    Attributes:
        seed: Of the run.
        rank: Number of the process.
        world_size: How many processes there are.
    """

    seed: int = 0
    rank: int = 0
    world_size: int = 1


@DATA_SAMPLERS.register_module()
class MixtureSampler(Sampler):
    """Counts the samples of a process, without end. What they are, the data set computes from their numbers.

    Args:
        dataset: A :class:`mmbeit.datasets.mixture.Mixture`, which is told which process this is.
        seed: Of the run; None: a random one, which all processes share.

    Raises:
        TypeError: The data set is another one.
    """

    def __init__(self, dataset: Dataset, seed: int | None = None):
        if not hasattr(dataset, 'process'):
            raise TypeError(f'MixtureSampler is for the data set mmbeit.Mixture, not for {type(dataset).__name__}')
        dataset.process = Process(sync_random_seed() if seed is None else seed, *get_dist_info())
        self.dataset = dataset
        self.start = 0

    def __iter__(self) -> Iterator[int]:
        return count(self.start)

    def skip(self, num_samples: int) -> None:
        """Begin after so many samples; mmengine's loop calls it when a run is resumed."""
        self.start = num_samples
        if begun := [name for name, places in self.dataset.places.items() if num_samples and not places]:
            print_log(
                f'the shards of {", ".join(begun)} are read from the first one on: no mmbeit.StreamHook among '
                'custom_hooks has kept their places',
                'current',
                logging.WARNING,
            )

    def __len__(self) -> int:
        return sys.maxsize  # mmengine wants a number, for schedules by epoch, of which there are none
