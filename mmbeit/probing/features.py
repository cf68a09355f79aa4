"""Features of images, row by row, as probes take them: from the disk, or computed anew."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from mmbeit.probing.extraction import Extractor, Kind, read_batches
from mmbeit.probing.images import LabelledImages

RUN = 1024  # rows that are read from one place
NEAR = 64  # places that the rows of a shuffled epoch are read from at a time


class FeatureError(RuntimeError):
    """Features cannot be computed or kept. The message is one line."""


class Features(Protocol):
    """Features of the images that could be read.

    The rows are in an order drawn once, so that any run of them is a fair sample of the images.

    Attributes:
        index: (rows,) long, which image a row is of.
        shape: Of a row.
    """

    index: Tensor
    shape: tuple[int, ...]

    def batches(self, rows: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Some rows and their features (B, *shape), in that order, in batches of nearly the same size.

        Args:
            rows: (number,) long.
            size: Of a batch, at most.
        """


class StoredFeatures:
    """Memory-mapped :class:`Features`.

    Args:
        shards: Features (number, *shape) and numbers of the images (number,) of each file.
    """

    def __init__(self, shards: list[tuple[Tensor, Tensor]]):
        self._shards = shards
        self._starts = torch.tensor([0, *(len(index) for _, index in shards)]).cumsum(0)
        self.index = torch.cat([index for _, index in shards])
        self.shape = tuple(shards[0][0].shape[1:])

    def of_block(self, block: int) -> 'StoredFeatures':
        """Those of one block, (rows, 2D), of pooled features (rows, blocks, 2D). Nothing else is read."""
        return StoredFeatures([(features[:, block], index) for features, index in self._shards])

    def batches(self, rows: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in split(rows, size):
            yield batch, self._read(batch)

    def _read(self, rows: Tensor) -> Tensor:
        out = torch.empty(len(rows), *self.shape, dtype=self._shards[0][0].dtype)
        where = torch.bucketize(rows, self._starts, right=True) - 1
        for shard in where.unique().tolist():
            here = (where == shard).nonzero().flatten()
            features, _ = self._shards[shard]
            out[here] = features[rows[here] - self._starts[shard]]
        return out


class StreamedFeatures:
    """:class:`Features` that are computed whenever they are used, for there would be too many to keep.

    Args:
        extractor: What computes them.
        kind: Which ones.
        images: Of what.
        index: (rows,) long, which image a row is of. All of them can be read.
        num_workers: Processes that read images.
    """

    def __init__(self, extractor: Extractor, kind: Kind, images: LabelledImages, index: Tensor, num_workers: int):
        self.index = index
        self.shape = kind.shape
        self._compute = lambda pixels: extractor(kind, pixels)
        self._read = lambda batches: read_batches(images, extractor.data, batches, num_workers)

    def batches(self, rows: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        batches = split(rows, size)
        read = self._read([self.index[batch].tolist() for batch in batches])
        for batch, (_, pixels, problems) in zip(batches, read, strict=True):
            if problems:
                raise FeatureError(f'{problems[0]}; a moment ago it could be read')
            yield batch, self._compute(pixels)


def split(rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """Batches of nearly the same size, at most `size`."""
    return rows.tensor_split(max(1, -(-len(rows) // size)))


def shuffle(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows in random order. Those near in it are near on the disk where there are more than fit in memory."""
    runs = rows.sort().values.split(RUN)
    order = torch.randperm(len(runs), generator=generator).tolist()
    near = [torch.cat([runs[i] for i in order[start : start + NEAR]]) for start in range(0, len(order), NEAR)]
    return torch.cat([group[torch.randperm(len(group), generator=generator)] for group in near])
