"""Visual tokens of a data set, in a folder of files that every process maps into its memory.

`tokens.json` says what the tokens are (:class:`TokenContents`), `paths.txt` has the path of each image on a line, and
`tokens_000.npy`, ... have the tokens of as many images each: for every image and view a record of `ids` (h, w) and of
`check`. `np.load('tokens_000.npy')['ids']` is an array (images, views, h, w) of the smallest unsigned integers that
will do. An image that could not be read has the largest such integer everywhere, which is no id.
"""

import json
import os
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike

CONTENTS = 'tokens.json'
PATHS = 'paths.txt'
PARTIAL = '.partial'
VERSION = 1
MAX_SHARDS = 256  # a process may have 1024 files open, and each map is one
MIN_IMAGES = 64  # in a shard; what a killed extraction loses is less than a shard
BLOCK = 64  # images that are counted at once


@dataclass(frozen=True)
class TokenContents:
    """What the tokens of a folder are, with everything that they depend on but the pixels. All values are JSON's.

    Args:
        tokenizer: Its type and arguments, and the sha256 of its weights.
        pipeline: The steps from the file of an image to its views.
        views: How many views K of each image there are.
        seed: View k of image i is what the pipeline makes when all generators start from `seeded(i, seed, k).seed`
            (:func:`mmbeit.datasets.samplers.seeded`): what a run of this seed shows in epoch k.
        grid: Tokens [h, w] of a view.
        num_codes: Size of the codebook.
        num_images: Images of the data set.
        versions: Of the libraries that made views and tokens.
        version: Of this format.
    """

    tokenizer: dict
    pipeline: list
    views: int
    seed: int
    grid: list
    num_codes: int
    num_images: int
    versions: dict
    version: int = VERSION

    @property
    def dtype(self) -> np.dtype:
        """Of a record: the tokens of one view."""
        ids = np.min_scalar_type(self.num_codes).newbyteorder('<')
        return np.dtype([('ids', ids, tuple(self.grid)), ('check', '<u4')])

    @property
    def no_id(self) -> int:
        """What stands for the tokens of an image that could not be read."""
        return int(np.iinfo(self.dtype['ids'].base).max)


def checksum(view: ArrayLike) -> int:
    """What tells one view from another: the CRC-32 of its pixels."""
    return zlib.crc32(np.ascontiguousarray(view))


def difference(one: Any, other: Any, where: str = '') -> str | None:
    """The first place where two JSON values differ, with both values, or None."""
    if isinstance(one, dict) and isinstance(other, dict):
        parts = [(key, one.get(key), other.get(key)) for key in {**one, **other}]
    elif isinstance(one, list) and isinstance(other, list) and any(isinstance(x, dict) for x in one + other):
        parts = [(i, *pair) for i, pair in enumerate(zip_longest(one, other))]
    else:
        return None if one == other else f'{where} is {one!r} there and {other!r} here'
    found = (difference(a, b, f'{where}.{key}' if where else str(key)) for key, a, b in parts)
    return next((text for text in found if text), None)


class TokenFolder:
    """A folder of tokens, to read from, and for :mod:`mmbeit.apis.extraction` to write to.

    Args:
        folder: Where it is.

    Attributes:
        contents: What the tokens are.

    Raises:
        FileNotFoundError: There are no tokens.
        ValueError: They are of a format that is not known here.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        path = self.folder / CONTENTS
        if not path.is_file():
            raise FileNotFoundError(f'no tokens in {folder}: tools/extract_tokens.py would have written a {CONTENTS}')
        contents = json.loads(path.read_text())
        if contents.get('version') != VERSION:
            raise ValueError(f'{path} is of version {contents.get("version")} of the format, not {VERSION}')
        self.contents = TokenContents(**contents)
        self._maps: dict[int, np.ndarray] = {}

    @classmethod
    def create(cls, folder: str | os.PathLike, contents: TokenContents, paths: Iterable[str]) -> 'TokenFolder':
        """Start a folder, or go on with one of the same contents.

        Args:
            folder: Is made where it is missing.
            contents: What is going to be written.
            paths: Of all images, in the order of the data set.

        Raises:
            ValueError: There are other tokens in it; the message says what differs. Or the name of an image has a
                line break.
        """
        folder = Path(folder)
        paths = list(paths)
        if not (folder / CONTENTS).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            if broken := next((path for path in paths if '\n' in path), None):
                raise ValueError(f'the name of an image has a line break: {broken!r}')
            lines = ''.join(f'{path}\n' for path in paths).encode(errors='surrogateescape')
            write_whole(folder / PATHS, lambda file: file.write(lines))
            text = json.dumps(asdict(contents), indent=1) + '\n'
            write_whole(folder / CONTENTS, lambda file: file.write(text.encode()))
        self = cls(folder)
        try:
            self.check_paths(paths)
            self.check(asdict(contents))
        except ValueError as error:
            raise ValueError(f'{error}; to extract these, name another folder') from None
        return self

    def check(self, wanted: dict) -> None:
        """Compare entries of :class:`TokenContents`.

        Raises:
            ValueError: One differs.
        """
        ours = asdict(self.contents)
        wanted = json.loads(json.dumps(wanted))
        if found := difference({key: ours[key] for key in wanted}, wanted):
            raise ValueError(f'{self.folder} holds other tokens: {found}')

    def check_paths(self, paths: Iterable[str]) -> None:
        """Compare the images with those of a data set.

        Raises:
            ValueError: They are others, or in another order.
        """
        for i, (ours, theirs) in enumerate(zip_longest(self.paths(), paths)):
            if ours != theirs:
                raise ValueError(
                    f'{self.folder} holds tokens of other images: image {i} is {ours or "none"} there and '
                    f'{theirs or "none"} here'
                )

    def check_whole(self) -> None:
        """Look for what an extraction that was stopped has not written.

        Raises:
            ValueError: Some tokens are missing.
        """
        if missing := self.missing():
            raise ValueError(
                f'{self.folder} is not complete: {len(missing)} of {self.num_shards} files are missing; '
                'tools/extract_tokens.py goes on where it was stopped'
            )

    def paths(self) -> Iterator[str]:
        """Of the images, relative to the folder of the data set."""
        with open(self.folder / PATHS, encoding='utf-8', errors='surrogateescape', newline='\n') as lines:
            for line in lines:
                yield line.removesuffix('\n')

    def __len__(self) -> int:
        """Number of images."""
        return self.contents.num_images

    def __getitem__(self, image: int) -> np.ndarray | None:
        """Records of an image (K,), of `ids` (h, w) and `check`; None where it could not be read."""
        if not 0 <= image < len(self):
            raise IndexError(f'image {image} of {len(self)}')
        shard, row = divmod(image, self.shard_size)
        records = self.shard(shard)[row]
        return None if records['ids'].flat[0] == self.contents.no_id else records

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_maps': {}}  # a worker maps what it needs

    # ---- files ----

    @property
    def shard_size(self) -> int:
        """Images in a file."""
        return max(MIN_IMAGES, -(-len(self) // MAX_SHARDS))

    @property
    def num_shards(self) -> int:
        return -(-len(self) // self.shard_size)

    def images_of(self, shard: int) -> range:
        """Indices of the images of a file."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, len(self)))

    def path_of(self, shard: int) -> Path:
        return self.folder / f'tokens_{shard:03}.npy'

    def shard(self, shard: int) -> np.ndarray:
        """Records (images, K) of a file, mapped."""
        if shard not in self._maps:
            self._maps[shard] = np.load(self.path_of(shard), mmap_mode='r').view(np.ndarray)
        return self._maps[shard]

    def missing(self) -> list[int]:
        """Numbers of the files that are not written."""
        return [shard for shard in range(self.num_shards) if not self.path_of(shard).is_file()]

    def empty(self, shard: int) -> np.ndarray:
        """Records to fill in, as of images that cannot be read."""
        records = np.zeros((len(self.images_of(shard)), self.contents.views), self.contents.dtype)
        records['ids'] = self.contents.no_id
        return records

    def write(self, shard: int, records: np.ndarray) -> None:
        """Write a file, which is whole then, or not there."""
        write_whole(self.path_of(shard), lambda file: np.save(file, records))

    def clear(self) -> None:
        """Remove what killed processes have left of files that they were writing."""
        for path in self.folder.glob(f'*{PARTIAL}'):
            path.unlink(missing_ok=True)

    # ---- statistics ----

    def counts(self) -> np.ndarray:
        """How often each code occurs, (num_codes,)."""
        counts = np.zeros(self.contents.num_codes, np.int64)
        for shard in range(self.num_shards):
            ids = self.shard(shard)['ids']
            for start in range(0, len(ids), BLOCK):
                block = ids[start : start + BLOCK].ravel()
                counts += np.bincount(block[block != self.contents.no_id], minlength=len(counts))
        return counts

    def unreadable(self) -> Iterator[str]:
        """Paths of the images that could not be read."""
        paths = self.paths()
        for shard in range(self.num_shards):
            first = self.shard(shard)['ids'][:, 0, 0, 0]
            for value, path in zip(first, paths, strict=False):
                if value == self.contents.no_id:
                    yield path


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file under another name, and rename it: it is whole or not there, whoever else writes it."""
    partial = path.with_name(f'{path.name}.{uuid.uuid4().hex}{PARTIAL}')
    with open(partial, 'xb') as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
