"""WebDataset shards, read as streams that can be gone on with in the middle of a shard."""

import lzma
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mmengine.dataset import Compose

from mmbeit.datasets.order import permuted
from mmbeit.datasets.samplers import SampleIndex
from mmbeit.registry import DATASETS

ORDER_OF_SHARDS, ORDER_OF_SAMPLES = 0, 1  # what a random order is of
BLOCK = 512  # bytes of a block of a tar file
MAX_SKIPPED = 1000  # samples in a row, as mmengine's data sets


class Place(NamedTuple):
    """Where a stream is between two samples. It is all that is needed to go on.

    Attributes:
        shard: Which of the stream's shards the block begins in, counted since the start of training.
        sample: How many samples of this shard come before the block.
        taken: How many samples of the block have been taken.
        skipped: How many samples of the stream could not be used, since the start of training.
    """

    shard: int = 0
    sample: int = 0
    taken: int = 0
    skipped: int = 0


class Part(NamedTuple):
    """Which part of all shards one stream reads: every `count`-th, from shard `number` on, in the order of a seed."""

    number: int
    count: int
    seed: int


@DATASETS.register_module()
class Shards:
    """Images, texts, or both, in the shards of WebDataset: tar files in which the files of a sample have one name.

    Nothing has to be known about the shards, and nothing of them is kept in memory but a block of samples that are not
    decoded. In every pass over the shards they come in another order; the streams, `num_streams` of each process, share
    them. There is no length and no index: :class:`mmbeit.datasets.mixture.Mixture` takes batches of the streams.

    A shard that is missing or cut off, a sample that lacks one of its files, and what the pipeline refuses, are skipped
    with a warning that names them.

    Args:
        shards: Paths or URLs as WebDataset knows them, `data/pairs/{0000..0999}.tar`; one, or several.
        pipeline: Steps from `img_bytes`, content of the image's file, and `text` to what is packed.
        image: Extensions of the image's file, of which a sample has one; None: samples have no image.
        text: Likewise, of the text's file, UTF-8.
        block: How many samples of a stream are shuffled with each other. 1: they come in the order of the shards.
        num_streams: Streams of a process. Which samples are seen when depends on it, and not on the number of workers,
            which has to divide it.

    Raises:
        ValueError: There is neither an image nor a text, there are no shards, or a number is not positive.
        ImportError: `webdataset` is not installed.
    """

    metainfo: dict = {}

    def __init__(
        self,
        shards: str | Sequence[str],
        pipeline: Sequence[dict | Callable] = (),
        image: Sequence[str] | None = ('jpg', 'jpeg', 'png', 'webp'),
        text: Sequence[str] | None = ('txt',),
        block: int = 1000,
        num_streams: int = 8,
    ):
        try:
            from webdataset.shardlists import expand_urls
        except ImportError as error:
            raise ImportError('shards need webdataset: pip install mmbeit[shards]') from error
        for name, value in (('block', block), ('num_streams', num_streams)):
            if value < 1:
                raise ValueError(f'{name} ({value}) is not positive')
        if image is None and text is None:
            raise ValueError('image and text are both None: expected extensions of one of them, or of both')
        self.urls = [url for spec in ([shards] if isinstance(shards, str) else shards) for url in expand_urls(spec)]
        if not self.urls:
            raise ValueError('shards names no shard')
        self.pipeline = Compose(pipeline)
        self.image = image
        self.text = text
        self.block = block
        self.num_streams = num_streams

    def full_init(self) -> None:
        """Look whether there are shards.

        Raises:
            FileNotFoundError: All of them are local files, and none is there.
        """
        if not any('://' in url or url.startswith('pipe:') or Path(url).is_file() for url in self.urls):
            raise FileNotFoundError(f'no such shards: {self.urls[0]}' + f' to {self.urls[-1]}' * (len(self.urls) > 1))

    def url(self, part: Part, shard: int) -> tuple[int, str]:
        """Of the shard-th shard of a part: the number of the pass over all shards that it belongs to, and its name."""
        epoch, position = divmod(shard * part.count + part.number, len(self.urls))
        return epoch, self.urls[permuted(position, len(self.urls), (part.seed, ORDER_OF_SHARDS, epoch))]

    def start_of(self, part: Part, epoch: int) -> Place:
        """Where a part begins that leaves out the passes before this one."""
        return Place(max(0, -(-(epoch * len(self.urls) - part.number) // part.count)))

    def stream(self, part: Part, place: Place) -> 'Stream':
        """The samples of a part, from a place on."""
        return Stream(self, part, place)

    def load(self, sample: dict[str, str | bytes]) -> dict | None:
        """From what a shard has to the first step of the pipeline; None, with a warning, where a file is missing."""
        name = f'{sample["__url__"]}/{sample["__key__"]}'
        results: dict = {'key': sample['__key__'], 'shard': sample['__url__']}
        for kind, extensions in (('img', self.image), ('text', self.text)):
            if extensions is None:
                continue
            extension = next((extension for extension in extensions if extension in sample), None)
            if extension is None:
                has = ', '.join(key for key in sample if not key.startswith('__'))
                return _refuse(f'{name} has no {" or ".join(extensions)}, only {has}')
            results[f'{kind}_path'] = f'{name}.{extension}'
            content = sample[extension]
            if kind == 'text':
                try:
                    results['text'] = content.decode().strip()
                except UnicodeDecodeError as error:
                    return _refuse(f'{name}.{extension}: {error}')
            else:
                results['img_bytes'] = content
        return results


class Stream:
    """An endless iterator over one part of :class:`Shards`.

    Samples are shuffled in blocks: of each block every sample is taken once, in a random order, while the next block is
    read into the places that get free. So a stream that goes on reads one block again, and nothing before it but the
    beginning of one shard.

    Attributes:
        place: Where it is, after what has been taken.
    """

    def __init__(self, shards: Shards, part: Part, place: Place):
        self.shards = shards
        self.part = part
        self.place = place
        self._blocks = self._shuffled(place)

    def take(self, index: SampleIndex, prepare: Callable[[], None]) -> dict:
        """The next sample that the pipeline accepts, packed.

        Args:
            index: Its `sample_idx`.
            prepare: Called before the pipeline, each time.

        Raises:
            ValueError: So many samples in a row cannot be used that the sources or the pipeline must be wrong.
        """
        for _ in range(MAX_SKIPPED):
            sample, place = next(self._blocks)
            self.place = place._replace(skipped=self.place.skipped)
            prepare()
            results = self.shards.load(sample)
            results = results and self.shards.pipeline({**results, 'sample_idx': index})
            if results is not None:
                return results
            self.place = self.place._replace(skipped=self.place.skipped + 1)
        name = f'{sample["__url__"]}/{sample["__key__"]}'
        raise ValueError(f'no sample of {MAX_SKIPPED} in a row can be used, the last one {name}')

    def _shuffled(self, place: Place) -> Iterator[tuple[dict, Place]]:
        """Samples from a place on, each with the place after it."""
        size, (shard, sample, taken, _) = self.shards.block, place
        samples = self._samples(shard, sample)
        block = list(islice(samples, size))
        while True:
            end, following = block[-1][1], []
            key = (self.part.seed, ORDER_OF_SAMPLES, self.part.number, shard, sample)
            for i in range(size):
                j = permuted(i, size, key)
                content, block[j] = block[j][0], None
                following.append(next(samples))
                if i >= taken:
                    yield content, Place(shard, sample, i + 1)
            (shard, sample), taken, block = end, 0, following

    def _samples(self, shard: int, skip: int) -> Iterator[tuple[dict, tuple[int, int]]]:
        """Samples as they are in the shards, each with `shard` and `sample` of the place after it."""
        empty = 0
        while True:
            count = 0
            for count, sample in enumerate(read_shard(self.shards.url(self.part, shard)[1]), 1):
                if count > skip:
                    yield sample, (shard, count)
            empty = 0 if count else empty + 1
            if empty >= len(self.shards.urls):
                raise ValueError(f'{empty} shards in a row, {self.shards.urls[0]} among them, had no samples')
            shard, skip = shard + 1, 0


def read_shard(url: str) -> Iterator[dict[str, str | bytes]]:
    """Samples of a shard, as long as it can be read: `__url__`, `__key__`, and the content of each file by extension.

    What is wrong with it becomes a warning.
    """
    from webdataset.gopen import gopen
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    count, problem = 0, []

    def files(stream: BinaryIO) -> Iterator[dict]:
        try:
            for file in tar_file_iterator(stream):
                yield {**file, '__url__': url}
        except (OSError, tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            problem.append(error)  # what comes before it is whole

    try:
        with gopen(url) as stream:
            stream = _Watched(stream)
            for sample in group_by_keys(files(stream)):
                yield sample
                count += 1
        if stream.cut_off and not problem:
            problem.append(EOFError('its end is missing'))
    except FileNotFoundError:
        warnings.warn(f'shard {url} is missing; it is skipped', stacklevel=2)
    except (OSError, ValueError) as error:
        problem.append(error)
    if problem:
        reason = ' '.join(str(problem[0]).partition(' @ ')[0].split())  # webdataset adds an address in memory
        warnings.warn(f'shard {url} cannot be read after {count} samples: {reason}; the next one follows', stacklevel=2)


class _Watched:
    """A stream of bytes that knows whether the end of a tar file was read, which `tarfile` does not look for."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.head = self.tail = b''

    def read(self, size: int = -1) -> bytes:
        content = self.stream.read(size)
        if len(self.head) < BLOCK:
            self.head = (self.head + content)[:BLOCK]
        self.tail = (self.tail + content[-BLOCK:])[-BLOCK:]
        return content

    @property
    def cut_off(self) -> bool:
        """Whether it was a tar file, of those that are not compressed, and did not end with a block of zeros."""
        return self.head[257:262] == b'ustar' and any(self.tail)


def _refuse(message: str) -> None:
    warnings.warn(f'{message}; it is skipped', stacklevel=3)
