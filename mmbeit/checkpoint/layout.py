"""What a model consists of, as templates of keys and shapes; and what keeps a file from being that.

A template is a key with `{}` for a number (a block, a group) and `{*}` for any rest; `{*}` is only for what is dropped.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import NamedTuple

from mmbeit.checkpoint.load import StateDict


class Entry(NamedTuple):
    """A tensor that a layout has.

    Attributes:
        key: Template.
        shape: Its dimensions, as 'F D': numbers, or letters that stand for the same number all over a layout, with a
            factor before them if need be ('3D'). `*` is any number.
        optional: Name of a group whose entries are there together, or not at all. Empty: always there.
        each: Whether that group may be there for some numbers of its templates and not for others.
        like: Template up to the `{}` that the numbers are of; by default the key's own.
        shared: Whether there may be a single one, at 0, instead of one for each number.
    """

    key: str
    shape: str
    optional: str = ''
    each: bool = False
    like: str = ''
    shared: bool = False

    @property
    def stem(self) -> str:
        return self.like or self.key[: self.key.rfind('{}') + 2] * ('{}' in self.key)


Layout = tuple[Entry, ...]


@dataclass
class Problems:
    """What is wrong with the keys of a file."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # sentences

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.wrong)

    def __str__(self) -> str:
        parts = [
            f'{len(keys)} {what}: {", ".join(keys[:6])}{", ..." if len(keys) > 6 else ""}'
            for what, keys in (('missing', self.missing), ('unexpected', self.unexpected), ('wrong', self.wrong))
            if keys
        ]
        return '; '.join(parts)


@cache
def pattern(template: str) -> re.Pattern:
    """The regular expression of a template; its groups are the numbers."""
    return re.compile(re.escape(template).replace(r'\{\}', r'(\d+)').replace(r'\{\*\}', '.+'))


@lru_cache(maxsize=1 << 14)  # every table of the format that a file is in looks at the same names
def look(name: str) -> str:
    """A template or a key with every number made alike."""
    return re.sub(r'\d+', '#', name.replace('{}', '0'))


def check_layout(state: StateDict, layout: Layout, problems: Problems, name: Callable[[str], list[str]]) -> None:
    """Look for gaps and contradicting shapes among tensors under our names.

    Args:
        state: Tensors.
        layout: What there should be.
        problems: Receives what is found.
        name: From a key of ours to its names in the file.
    """
    looks: dict[str, list[str]] = {}
    for key in state:
        looks.setdefault(look(key), []).append(key)
    present: dict[Entry, dict[tuple[int, ...], str]] = {}
    numbers: dict[str, set[tuple[int, ...]]] = {}
    for entry in layout:
        expression = pattern(entry.key)
        hits = (expression.fullmatch(key) for key in looks.get(look(entry.key), []))
        present[entry] = {tuple(map(int, hit.groups())): hit[0] for hit in hits if hit}
        if not entry.shared:
            numbers.setdefault(entry.stem, set()).update(present[entry])
    for stem, found in numbers.items():
        if stem:
            numbers[stem] = _without_gaps(found, first=int(stem.endswith('_{}')))
    groups = {entry.optional: set() for entry in layout}
    for entry in layout:
        groups[entry.optional].update(present[entry])
    missing = []
    for entry in layout:
        expected = (numbers.get(entry.stem) or set()) if entry.stem else {()}
        if not entry.optional and entry.stem and not expected:
            expected = {(0,) * entry.key.count('{}')}
        if entry.optional:
            group = groups[entry.optional]
            if not group or (entry.shared and group == {(0,)}) or entry.each:
                expected = group
        missing += [entry.key.format(*at) for at in sorted(expected - present[entry].keys())]
        if entry.shared and (extra := present[entry].keys() - expected):
            problems.wrong.append(f'there is no block for {", ".join(present[entry][at] for at in sorted(extra))}')
    problems.missing += dict.fromkeys(key for ours in missing for key in name(ours))  # one may be cut into several
    shapes = {
        key: (tuple(state[key].shape), entry.shape.split()) for entry in layout for key in present[entry].values()
    }
    sizes = _vote(shapes.values())
    for key, (shape, words) in shapes.items():
        if not _fits(shape, words, sizes):
            wanted = ', '.join(_expected(word, sizes) for word in words)
            problems.wrong.append(f'{" + ".join(name(key))} has shape {shape}, expected ({wanted})')


def _without_gaps(found: set[tuple[int, ...]], first: int) -> set[tuple[int, ...]]:
    """Fill each position up to its largest number: a block that is gone as a whole is missed, too."""
    return {(*head, i) for *head, last in found for i in range(first, last + 1)}


def _factor(word: str) -> tuple[int, str]:
    """'3D' is (3, 'D'), 'D' is (1, 'D'), '3' is (3, '')."""
    factor, letter = re.fullmatch(r'(\d*)(.*)', word).groups()
    return int(factor or 1), letter


def _vote(shapes: Iterable[tuple[tuple[int, ...], list[str]]]) -> dict[str, int]:
    """What number each letter stands for in most of the shapes."""
    votes: dict[str, Counter] = {}
    for shape, words in shapes:
        for size, word in zip(shape, words, strict=False):
            factor, letter = _factor(word)
            if letter and size % factor == 0:
                votes.setdefault(letter, Counter())[size // factor] += 1
    return {letter: counter.most_common(1)[0][0] for letter, counter in votes.items() if letter != '*'}


def _fits(shape: tuple[int, ...], words: list[str], sizes: dict[str, int]) -> bool:
    expected = [_expected(word, sizes) for word in words]
    return len(shape) == len(expected) and all(e in ('*', str(size)) for size, e in zip(shape, expected, strict=True))


def _expected(word: str, sizes: dict[str, int]) -> str:
    factor, letter = _factor(word)
    return str(factor * sizes[letter]) if letter in sizes else letter or str(factor)
