"""Names of one layout to names of another: rows of a table, and the one interpreter of them.

Keys are written as templates, see :mod:`mmbeit.checkpoint.layout`.
"""

import difflib
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from mmbeit.checkpoint.layout import Layout, Problems, check_layout, look, pattern
from mmbeit.checkpoint.load import CheckpointError, StateDict


@dataclass(frozen=True)
class Rename:
    """One tensor, another name.

    Attributes:
        source, target: Templates.
        unless: A key of ours with which the row does not count on the way back: a position table at 0 is shared by all
            blocks unless there is one at 1.
    """

    source: str
    target: str
    unless: str = ''


@dataclass(frozen=True)
class Fuse:
    """Several tensors, concatenated along their first dimension. An empty name stands for zeros."""

    sources: tuple[str, ...]
    target: str


@dataclass(frozen=True)
class Split:
    """One tensor, cut into equal parts along its first dimension. A part without a name has to be zero."""

    source: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Reform:
    """One tensor, another name and another form.

    Attributes:
        source, target: Templates.
        there, back: Functions that undo each other, but for what nobody reads. What they cannot reform they leave as it
            is, so that its shape is refused.
    """

    source: str
    target: str
    there: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Drop:
    """A key that is left out on purpose. On the way back it is made by `make` from each key like `like`, if given."""

    source: str
    like: str = ''
    make: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Make:
    """The inverse of :class:`Drop`: a key that the source does not have."""

    target: str
    like: str = ''
    make: Callable[[Tensor], Tensor] | None = None


Row = Rename | Reform | Fuse | Split | Drop | Make


@dataclass(frozen=True)
class Table:
    """How a format names what a kind of model consists of.

    Attributes:
        format: Who names it so, such as 'timm'.
        kind: What it is, such as 'classifier'.
        rows: From their names to ours. The first row that matches a key counts.
        layout: Ours, of that kind.
        outward: Whether the rows lead from our names to theirs; :func:`invert` turns it.
    """

    format: str
    kind: str
    rows: Sequence[Row]
    layout: Layout
    outward: bool = False

    def __str__(self) -> str:
        return f'{self.format} layout of kind {self.kind!r}'

    @cached_property
    def _candidates(self) -> dict[str, list[tuple[re.Pattern, Row, int]]]:
        """Rows by the look of their source names, since a file has hundreds of keys and there are many tables."""
        candidates = {}
        for row in self.rows:
            for part, source in enumerate(_sources(row)):
                if source:
                    form = '{*}' if '{*}' in source else look(source)
                    candidates.setdefault(form, []).append((pattern(source), row, part))
        return candidates

    def find(self, key: str, present: Container[str]) -> tuple[Row, int, tuple[str, ...]] | None:
        """The first row that matches a key among those present: it, which of its sources, and the numbers in it."""
        for expression, row, part in self._candidates.get(look(key), []) + self._candidates.get('{*}', []):
            if self.outward and isinstance(row, Rename) and row.unless and row.unless in present:
                continue
            if match := expression.fullmatch(key):
                return row, part, match.groups()
        return None


def _sources(row: Row) -> tuple[str, ...]:
    match row:
        case Fuse(sources=sources):
            return sources
        case Make():
            return ()
    return (row.source,)


def invert(table: Table) -> Table:
    """The table of the way back. Of several rows with one target the first leads back to its source."""
    rows = []
    for row in table.rows:
        match row:
            case Rename(source, target, unless):
                rows.append(Rename(target, source, unless))
            case Reform(source, target, there, back):
                rows.append(Reform(target, source, back, there))
            case Fuse(sources, target):
                rows.append(Split(target, sources))
            case Split(source, targets):
                rows.append(Fuse(targets, source))
            case Drop(source, like, make):
                rows.append(Make(source, like, make))
            case Make(target, like, make):
                rows.append(Drop(target, like, make))
    return replace(table, rows=tuple(rows), outward=not table.outward)


def convert(state: StateDict, table: Table) -> StateDict:
    """Rename every tensor. What is not cut or concatenated shares its memory.

    Raises:
        CheckpointError: Keys that no row matches, keys that are missing, shapes that contradict each other; all of
            them in one message, which names the layout and the nearest names.
    """
    result, problems = attempt(state, table)
    if problems:
        raise CheckpointError(f'does not fit the {table}, which is the nearest: {problems}')
    return result


def attempt(state: StateDict, table: Table) -> tuple[StateDict, Problems]:
    """Rename as far as it goes, and say what is wrong."""
    problems = Problems()
    result: StateDict = {}
    fuses: dict[tuple[Fuse, tuple[str, ...]], dict[int, Tensor]] = {}
    unexpected = []

    def put(template: str, numbers: tuple[str, ...], tensor: Tensor, source: str) -> None:
        key = template.format(*numbers)
        if key in result:
            problems.wrong.append(f'{source} and another key both stand for {key}')
        result[key] = tensor

    for key, tensor in state.items():
        found = table.find(key, state)
        if found is None:
            unexpected.append(key)
            continue
        row, part, numbers = found
        match row:
            case Rename():
                put(row.target, numbers, tensor, key)
            case Reform():
                put(row.target, numbers, row.there(tensor), key)
            case Fuse():
                fuses.setdefault((row, numbers), {})[part] = tensor
            case Split(targets=targets):
                if tensor.ndim == 0 or len(tensor) % len(targets):
                    problems.wrong.append(f'{key} {_shape(tensor)} does not divide into {len(targets)}')
                    continue
                for target, piece in zip(targets, tensor.chunk(len(targets)), strict=True):
                    if target:
                        put(target, numbers, piece.clone(), key)
                    elif not piece.is_meta and piece.count_nonzero():
                        problems.wrong.append(f'{key} has a part that BEiT does not have (the bias of k), not zero')
    for (row, numbers), parts in fuses.items():
        names = [source.format(*numbers) for source in row.sources]
        like = next(iter(parts.values()))
        absent = [name for i, name in enumerate(names) if name and i not in parts]
        if absent:
            problems.missing += absent
            # A stand-in, so that it is not reported a second time as missing under its other name.
            result[row.target.format(*numbers)] = torch.empty(len(names) * len(like), *like.shape[1:], device='meta')
        elif any(tensor.shape != like.shape for tensor in parts.values()):
            shapes = ', '.join(f'{names[i]} {_shape(tensor)}' for i, tensor in sorted(parts.items()))
            problems.wrong.append(f'shapes differ: {shapes}')
        else:
            pieces = [parts[i] if name else torch.zeros_like(like) for i, name in enumerate(names)]
            put(row.target, numbers, torch.cat(pieces), names[0])
    ours = state if table.outward else result
    back = None if table.outward else invert(table)
    check_layout(ours, table.layout, problems, lambda key: [key] if back is None else _names(back, key, ours))
    problems.unexpected += [_with_nearest(key, state, table) for key in unexpected]
    for row in table.rows:
        if isinstance(row, Make) and row.make and not problems:
            expression = pattern(row.like)
            for key in list(result):
                if match := expression.fullmatch(key):
                    result[row.target.format(*match.groups())] = row.make(result[key])
    return result, problems


def _names(table: Table, key: str, present: Container[str]) -> list[str]:
    """What another layout calls one key."""
    found = table.find(key, present)
    match found and found[0]:
        case Rename(target=target) | Reform(target=target) | Fuse(target=target):
            return [target.format(*found[2])]
        case Split(targets=targets):
            return [target.format(*found[2]) for target in targets if target]
    return [key]


def _with_nearest(key: str, state: StateDict, table: Table) -> str:
    """A key that nobody knows, with the one that was probably meant."""
    numbers = re.findall(r'\d+', key)
    known: list[str] = []
    for row in table.rows:
        for source in _sources(row):
            wanted = source.count('{}')
            if source and '{*}' not in source and wanted <= len(numbers):
                known.append(source.format(*numbers[:wanted]))
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f'{key} (nearest: {close[0]})' if close else key


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def both(source: str, target: str) -> list[Rename]:
    """Rows of a weight and its bias."""
    return [Rename(f'{source}.{name}', f'{target}.{name}') for name in ('weight', 'bias')]
