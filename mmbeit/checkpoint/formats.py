"""What a file is: whose layout, of which kind of model; and the way to ours and back."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmbeit.checkpoint import tables, tables_beit3
from mmbeit.checkpoint.keymap import Table, attempt, convert, invert
from mmbeit.checkpoint.layout import Problems
from mmbeit.checkpoint.load import CheckpointError, StateDict
from mmbeit.layers.position import NUM_CLASS_ROWS, grid_of_table, num_table_rows

CONTAINERS = ('state_dict', 'model', 'module')
AVERAGES = ('ema_state_dict', 'model_ema', 'state_dict_ema', 'ema')
WRAPPERS = ('module.', '_orig_mod.')
OPENMMLAB = ('mmpretrain', 'mmseg')  # their files are read for their own models, too
# What other vision transformers do not have; without one of these a file is taken for one of theirs.
MARKS = re.compile(
    r'(^|.*\.)(q_bias|relative_position_bias_table|gamma_[12]|lambda_[12]|scale[12]\.gamma|rel_pos_bias\.\d+\.table'
    r'|blocks\.input\.(w|weight))|beit\..*|(tokenizer\.)?quantizer\.codebook'
)
# Families of models, by what tells them from each other and from the rest: of a file only those tables are tried.
FAMILIES = ((MARKS, tables.TABLES), (tables_beit3.MARKS, tables_beit3.TABLES))
TABLES: tuple[Table, ...] = tables.TABLES + tables_beit3.TABLES
FORMATS = tuple(dict.fromkeys(table.format for table in TABLES))


class Format(NamedTuple):
    """What a file was recognised as.

    Attributes:
        table: Of its layout and kind.
        problems: What keeps it from being exactly that.
    """

    table: Table
    problems: Problems

    @property
    def name(self) -> str:
        return self.table.format

    @property
    def kind(self) -> str:
        return self.table.kind

    @property
    def exact(self) -> bool:
        return not self.problems


def unwrap(content: Any, ema: bool = False) -> StateDict:
    """The weights in what a file holds: out of its containers, without the prefixes of wrappers.

    Args:
        content: A state dict, or a dict with one under 'state_dict', 'model' or 'module'.
        ema: Whether to take the average of the weights instead.

    Raises:
        CheckpointError: There are no tensors, or no average.
    """
    if ema:
        found = [content[key] for key in AVERAGES if isinstance(content, dict) and key in content]
        if not found:
            raise CheckpointError(f'it holds no average of the weights: there is none of {", ".join(AVERAGES)}')
        content = found[0]
    while isinstance(content, dict):
        inner = [content[key] for key in CONTAINERS if isinstance(content.get(key), dict)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, dict):
        raise CheckpointError(f'it holds a {type(content).__name__}, where a checkpoint holds named tensors')
    state = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f'it holds no tensors, only {", ".join(map(str, list(content)[:4])) or "nothing"}')
    for prefix in WRAPPERS:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def recognize(state: StateDict, formats: Iterable[str] = FORMATS) -> Format | None:
    """Whose layout the keys and shapes are of, and how exactly.

    Args:
        state: Tensors, or tensors on 'meta': no value is read.
        formats: Names of the formats to think of.

    Returns:
        The first format that fits exactly, else the one with the most keys in common, else, where these are less than
        half of all keys or nothing in them is peculiar to the family, None.
    """
    candidates = [
        table
        for marks, family in FAMILIES
        if any(map(marks.fullmatch, state))
        for table in family
        if table.format in formats
    ]
    shapes = {key: torch.empty_like(tensor, device='meta') for key, tensor in state.items()}
    known = [sum(table.find(key, shapes) is not None for key in shapes) for table in candidates]
    for table, count in zip(candidates, known, strict=True):
        if count == len(shapes):
            _, problems = attempt(shapes, table)
            if not problems:
                return Format(table, problems)
    near = []
    for table, count in zip(candidates, known, strict=True):
        if 2 * count >= len(shapes):
            _, problems = attempt(shapes, table)
            near.append((count - len(problems.missing), count, Format(table, problems)))
    return max(near, key=lambda entry: entry[:2])[2] if near else None


def find_table(format: str, kind: str) -> Table | None:
    """The first table of that format and kind."""
    return next((table for table in TABLES if (table.format, table.kind) == (format, kind)), None)


def to_ours(state: StateDict, source: str = 'auto') -> tuple[StateDict, Format]:
    """Rename the weights of any format.

    Args:
        state: Tensors under anybody's names.
        source: Name of their format, or 'auto'.

    Returns:
        The same under our names, and what they were recognised as.

    Raises:
        CheckpointError: They are not of the BEiT family, or not exactly of any layout; the message lists the keys.
        ValueError: There is no format `source`.
    """
    formats = FORMATS if source == 'auto' else (check_format(source),)
    found = recognize(state, formats)
    if found is None:
        keys = ', '.join(list(state)[:4])
        raise CheckpointError(
            f'not recognised as a model of the BEiT family ({" / ".join(formats)}): it holds {keys}, ...'
        )
    return convert(state, found.table), found


def from_ours(state: StateDict, target: str, kind: str | None = None) -> tuple[StateDict, Table]:
    """Rename weights of ours for another project.

    Args:
        state: Tensors under our names.
        target: Name of the format wanted.
        kind: What they are; recognised by default.

    Returns:
        The same under their names, and the table that leads back to ours.

    Raises:
        CheckpointError: They are not complete, or that format has no such model.
        ValueError: There is no format `target`.
    """
    check_format(target)
    if kind is None:
        found = recognize(state, ['mmbeit'])
        if found is None or not found.exact:
            raise CheckpointError(f'not a complete model of ours: {found.problems if found else "no key is known"}')
        kind = found.kind
    table = find_table(target, kind)
    if table is None and kind == 'vqkd' and find_table(target, 'vqkd_encoder'):  # the tokenizer without its decoder
        state = vqkd_encoder(state)
        table = find_table(target, 'vqkd_encoder')
    if table is None:
        known = ', '.join(dict.fromkeys(table.kind for table in TABLES if table.format == target))
        raise CheckpointError(f'{target} has no model of kind {kind!r}, only {known}')
    if target != 'mmbeit':
        check_square(state, target)
    return convert(state, invert(table)), table


def vqkd_encoder(state: StateDict) -> StateDict:
    """The part of a VQ-KD that makes the tokens, under the names that it has by itself."""
    part = 'tokenizer.'
    return {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}


def check_square(state: StateDict, target: str) -> None:
    """Other layouts do not record the grid of a position table, and take it for a square."""
    for key, grid in state.items():
        if key.endswith('pos_grid') and grid[0] != grid[1]:
            sides = ' x '.join(map(str, grid.tolist()))
            raise CheckpointError(f'the layout of {target} knows square grids only, {key} is of {sides} patches')
    for key, table in state.items():
        if not key.endswith('.table') or 'rel_pos_bias.' not in key:
            continue
        grid = state.get(f'{key.removesuffix("table")}grid')
        try:
            height, width = grid_of_table(len(table)) if grid is None else grid.tolist()
        except ValueError as error:
            raise CheckpointError(f'the layout of {target} knows square grids only: {error}') from error
        if height != width or num_table_rows((height, width)) != len(table):
            raise CheckpointError(
                f'the layout of {target} knows square grids only, {key} is of {height} x {width} patches '
                f'({len(table)} rows, {NUM_CLASS_ROWS} for the class token)'
            )


def check_format(name: str) -> str:
    """Return the name of a format, if it is one."""
    if name not in FORMATS:
        raise ValueError(f'unknown format {name!r}: expected one of {", ".join(FORMATS)}')
    return name
