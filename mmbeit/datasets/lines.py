"""Data sets that are files of lines, too large for memory."""

import json
import mmap
import os
import warnings
import zlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from mmbeit.datasets.tokens import write_whole
from mmbeit.registry import DATASETS

CHUNK = 2**24  # bytes that are searched for lines at once
HEADER = 2  # numbers of an index before the offsets: size and time of the file that it belongs to
LARGE = 2**30  # bytes of a file whose indexing is announced


class LineFile:
    """Lines of a file, without the blank ones, each read from the file when it is asked for.

    Where they begin is found once, by one process, and written to a file `<name>.index`, of eight bytes a line, which
    every process maps into its memory. It is written again when the file has changed.

    Args:
        path: The file, UTF-8.
        index_dir: Folder of the index; None: next to the file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It has no lines, or the index cannot be written.
    """

    def __init__(self, path: str | os.PathLike, index_dir: str | os.PathLike | None = None):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f'no such file: {self.path}')
        self.index_path = self.path.with_name(f'{self.path.name}.index')
        if index_dir is not None:  # where files of other folders, of the same name, may have theirs
            place = zlib.crc32(os.fsencode(self.path.resolve().parent))
            self.index_path = Path(index_dir, f'{self.path.name}.{place:08x}.index')
        self._content = self._offsets = None
        if not self._is_indexed():
            try:
                self.index_path.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(f'{self.index_path}.lock'):  # all processes of a run want it now
                    if not self._is_indexed():
                        write_whole(self.index_path, self._write_index)
            except OSError as error:
                raise ValueError(
                    f'cannot write {self.index_path}: {error.strerror}; index_dir names another folder for it'
                ) from error
        if not len(self):
            raise ValueError(f'{self.path} has no lines')

    def _header(self) -> list[int]:
        stat = self.path.stat()
        return [stat.st_size, stat.st_mtime_ns]

    def _is_indexed(self) -> bool:
        path = self.index_path
        return path.is_file() and np.fromfile(path, '<u8', HEADER).tolist() == self._header()

    def _write_index(self, file: BinaryIO) -> None:
        header = self._header()
        if header[0] >= LARGE:
            print_log(f'looking for the lines of {self.path} ({header[0] / LARGE:.0f} GiB), once', 'current')
        file.write(np.array(header, '<u8').tobytes())
        for offsets in self._scan():
            file.write(offsets.astype('<u8').tobytes())

    def _scan(self) -> Iterator[np.ndarray]:
        """Offsets of the lines that have more than white space."""
        with open(self.path, 'rb') as file:
            begin, rest = 0, b''  # the offset of `rest`, a line that is not over yet
            while chunk := file.read(CHUNK):
                end = chunk.rfind(b'\n') + 1
                if not end:
                    rest += chunk
                    continue
                block = np.frombuffer(rest + chunk[:end], np.uint8)
                yield begin + _starts(block)
                begin, rest = begin + len(block), chunk[end:]
            if rest:
                yield begin + _starts(np.frombuffer(rest, np.uint8))

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def offsets(self) -> np.ndarray:
        """Where the lines begin, in bytes."""
        if self._offsets is None:
            self._offsets = np.memmap(self.index_path, '<u8', 'r')[HEADER:]
        return self._offsets

    def __getitem__(self, i: int) -> bytes:
        """Line i, without its end."""
        if self._content is None:
            with open(self.path, 'rb') as file:
                self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = int(self.offsets[i])
        end = self._content.find(b'\n', start)
        return self._content[start : end if end >= 0 else None].rstrip(b'\r')

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_content': None, '_offsets': None}  # a worker maps what it needs


def _starts(block: np.ndarray) -> np.ndarray:
    """Where the lines of some text begin that are not blank."""
    starts = np.concatenate([[0], np.flatnonzero(block == ord('\n')) + 1])
    starts = starts[starts < len(block)]
    return starts[np.add.reduceat(block > ord(' '), starts, dtype=np.int64) > 0]


class Lines(BaseDataset, ABC):
    """Data set whose samples are the lines of files that are not blank.

    Args:
        ann_file: A file, or several, relative to `data_root`.
        data_root: Folder of the files.
        index_dir: See :class:`LineFile`.
        kwargs: Of :class:`mmengine.dataset.BaseDataset`: `pipeline`, `data_prefix`, `lazy_init`, `max_refetch`.
    """

    def __init__(
        self,
        ann_file: str | Sequence[str],
        data_root: str = '',
        index_dir: str | os.PathLike | None = None,
        **kwargs,
    ):
        self.paths = [Path(data_root, path) for path in ([ann_file] if isinstance(ann_file, str) else ann_file)]
        self.index_dir = index_dir
        super().__init__(data_root=data_root, serialize_data=False, **kwargs)

    def full_init(self) -> None:
        """Find the lines.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A file has no lines, or its index cannot be written.
        """
        if not self._fully_initialized:
            self.files = [LineFile(path, self.index_dir) for path in self.paths]
            self.ends = list(accumulate(map(len, self.files)))
            self._fully_initialized = True

    def __len__(self) -> int:
        self.full_init()
        return self.ends[-1]

    def get_data_info(self, idx: int) -> dict | None:
        """The sample of a line; None where there is none."""
        if not 0 <= idx < len(self):
            raise IndexError(f'line {idx} of {len(self)}')
        file = bisect_right(self.ends, idx)
        i = idx - (self.ends[file] - len(self.files[file]))
        info = self.parse(self.files[file][i], f'{self.paths[file]}, byte {self.files[file].offsets[i]}')
        return None if info is None else {**info, 'sample_idx': idx}

    @abstractmethod
    def parse(self, line: bytes, where: str) -> dict | None:
        """From a line to a sample, or to None with a warning that says where it is."""

    def prepare_data(self, idx: int) -> dict | None:
        info = self.get_data_info(idx)
        return None if info is None else self.pipeline(info)


@DATASETS.register_module()
class TextLines(Lines):
    """Texts, one on each line that is not blank.

    Samples have `text`, and `text_path`, which says where it is. Arguments are those of :class:`Lines`.
    """

    def parse(self, line: bytes, where: str) -> dict | None:
        try:
            return {'text': line.decode(), 'text_path': where}
        except UnicodeDecodeError as error:
            warnings.warn(f'{where}: {error}; another text takes its place', stacklevel=2)
            return None


@DATASETS.register_module()
class PairLines(Lines):
    """Images with texts, one JSON object on each line: `{"image": "path", "text": "a cat"}`.

    Samples have `img_path`, `text`, and `text_path`, which says where the text is.

    Args:
        ann_file: As of :class:`Lines`.
        data_root: Folder of the files, and of the images.
        data_prefix: Folder of the images relative to `data_root`, as `dict(img_path='images')`.
        image_key: Name of the path in an object.
        text_key: Name of the text: of one, or of a list of texts of which one is drawn.
        kwargs: Of :class:`Lines`.
    """

    def __init__(
        self,
        ann_file: str | Sequence[str],
        data_root: str = '',
        image_key: str = 'image',
        text_key: str = 'text',
        **kwargs,
    ):
        self.image_key = image_key
        self.text_key = text_key
        super().__init__(ann_file, data_root, **kwargs)

    def parse(self, line: bytes, where: str) -> dict | None:
        try:
            pair = json.loads(line)
            image, text = pair[self.image_key], pair[self.text_key]
            if isinstance(text, list):
                text = text[np.random.randint(len(text))]
            if not (isinstance(image, str) and isinstance(text, str)):
                raise TypeError(f'{self.image_key} and {self.text_key} are not both texts')
        except (ValueError, TypeError, KeyError) as error:
            reason = f'no {error}' if isinstance(error, KeyError) else str(error)
            warnings.warn(f'{where}: {reason}; another pair takes its place', stacklevel=2)
            return None
        folder = self.data_prefix.get('img_path') or self.data_root
        return {'img_path': str(Path(folder, image)), 'text': text, 'text_path': where}
