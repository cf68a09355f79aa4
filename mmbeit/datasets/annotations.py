"""Annotation files, and one line that says in which entry of which file something is wrong."""

import gc
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any

from mmengine.fileio import get_text, join_path, list_dir_or_file

WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError)


def read_json(path: str | os.PathLike) -> Any:
    """What a JSON file holds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON.
    """
    try:
        return json.loads(get_text(path))
    except ValueError as error:
        raise ValueError(f'{path} is no JSON: {error}') from error


def read_json_lines(path: str | os.PathLike) -> list:
    """What a file holds that has JSON in each line.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is no JSON.
    """
    with Entries(path, 'line', get_text(path).strip().split('\n'), first=1) as lines:
        return [json.loads(line) for line in lines]


@contextmanager
def collector_off() -> Iterator[None]:
    """Keep Python from searching millions of entries for cycles, which they do not have, again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Entries:
    """The entries of a file, one after the other. Within `with`, what is wrong with one becomes a line that names it.

    Args:
        path: The file.
        name: Of the list, or of one entry.
        entries: These, or what contains them under `name`.
        first: Number of the first entry.

    Raises:
        ValueError: There is no such list.
    """

    def __init__(self, path: str | os.PathLike, name: str, entries: Any, first: int = 0):
        if isinstance(entries, dict):
            entries = entries.get(name)
        if not isinstance(entries, list):
            raise ValueError(f'{path} has no list of {name}')
        self.path = path
        self.name = name
        self.entries = entries
        self.first = first
        self.number = first

    def __iter__(self) -> Iterator:
        for number, entry in enumerate(self.entries, self.first):
            self.number = number
            yield entry

    def __enter__(self) -> 'Entries':
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, WRONG):
            reason = f'there is no {error}' if isinstance(error, KeyError) else error
            raise ValueError(f'{self.path}, {self.name} {self.number}: {reason}') from error


def filled(text: Any, name: str) -> str:
    """A text that has something in it.

    Raises:
        ValueError: It is empty, or no text.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'the {name} is {text!r}')
    return text


def image_paths(folder: str | os.PathLike) -> dict[int, str]:
    """Images of a folder by the last number in their names: that of `COCO_val2014_000000000042.jpg` is 42.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    paths = {}
    for name in list_dir_or_file(folder, list_dir=False, recursive=True):
        if numbers := re.findall(r'\d+', PurePosixPath(name).stem):
            paths[int(numbers[-1])] = join_path(folder, name)
    return paths


def path_of(paths: dict[int, str], image_id: int, folder: str | os.PathLike) -> str:
    """The path of an image of :func:`image_paths`.

    Raises:
        ValueError: There is none of this number.
    """
    if image_id not in paths:
        raise ValueError(f'there is no image {image_id} in {folder}')
    return paths[image_id]
