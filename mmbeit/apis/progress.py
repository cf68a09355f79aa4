"""Bars on the terminal. They go to stderr, and nothing is drawn into a file or a pipe."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

T = TypeVar('T')
MIN_ITEMS = 16


def bar(*columns, enabled: bool = True) -> Progress:
    console = Console(stderr=True)
    shown = (TextColumn('{task.description}'), BarColumn(), *columns, TimeRemainingColumn())
    return Progress(*shown, console=console, disable=not (enabled and console.is_terminal))


def download_bar() -> Progress:
    """A bar that counts bytes and estimates when they will have arrived."""
    return bar(DownloadColumn(), TransferSpeedColumn())


def track(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Go through the items, with a bar where there are many."""
    with bar(MofNCompleteColumn(), enabled=total >= MIN_ITEMS) as progress:
        yield from progress.track(items, total=total, description=description)
