"""Weights of any format, under our names; and into a model of ours."""

import logging
import os
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from mmbeit.checkpoint.backbone import NAME, STEM, TEXT_STEM
from mmbeit.checkpoint.formats import OPENMMLAB, Format, recognize, to_ours, unwrap
from mmbeit.checkpoint.keymap import convert
from mmbeit.checkpoint.load import CheckpointError, StateDict, read_weights


class Loaded(NamedTuple):
    """What has been loaded.

    Attributes:
        format: What the file was recognised as; None for a model that no format has.
        state: The part of the file that the model took, under our names.
        dropped: Parts of the file, such as 'head', that the model has no use for.
        fresh: Parameters and buffers of the model that the file says nothing of.
    """

    format: Format | None
    state: StateDict
    dropped: list[str]
    fresh: list[str]


def load_state(path: str | os.PathLike, source: str = 'auto', ema: bool = False) -> tuple[StateDict, Format]:
    """Read the weights of a file of any format under our names.

    Args:
        path: As for :func:`mmbeit.checkpoint.load.read_weights`.
        source: Name of the format, or 'auto'.
        ema: Whether to read the average of the weights that official files may hold.

    Returns:
        The weights, and what they were recognised as. Tensors stay on disk until they are used: copy what outlives
        the file.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file cannot be read, or does not hold a whole model of the BEiT family.
    """
    content = read_weights(path)
    try:
        return to_ours(unwrap(content, ema), source)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from error


def load_into(
    model: nn.Module,
    path: str | os.PathLike,
    source: str = 'auto',
    ema: bool = False,
    log: Callable[[str], None] | None = None,
) -> Loaded:
    """Load a file of any format into a model with a backbone of ours, or into such a backbone.

    The backbone has to fit, whatever the size of the image; any other part is loaded if it fits as a whole, else it
    keeps the weights that it has, and one line says so.

    Args:
        model: What to load into.
        path, source, ema: As for :func:`load_state`. A file of a model that somebody has built around our backbone
            will do, too.
        log: Takes that line; by default a warning of Python's logging.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file cannot be read, or the backbone does not fit; the message lists the keys.
    """
    return put(model, read_weights(path), str(path), source, ema, log)


def put(
    model: nn.Module,
    content: object,
    name: str,
    source: str = 'auto',
    ema: bool = False,
    log: Callable[[str], None] | None = None,
) -> Loaded:
    """Load what was read from a file, see :func:`load_into`.

    Args:
        model: What to load into.
        content: What the file holds.
        name: Of the file, for messages.
        source, ema, log: As for :func:`load_into`.

    Raises:
        CheckpointError: It does not fit.
    """
    log = log or logging.getLogger(__name__).warning
    try:
        state, found = _named_as_ours(unwrap(content, ema), source)
        kept, dropped = select(model, state)
        missing, _ = model.load_state_dict(kept, strict=False)
    except CheckpointError as error:
        raise CheckpointError(f'{name}: {error}') from error
    for part, reason in dropped.items():
        log(f'{name}: {part} is not loaded, {reason}')
    return Loaded(found, kept, list(dropped), missing)


def _named_as_ours(state: StateDict, source: str) -> tuple[StateDict, Format | None]:
    """Like `to_ours`, but what somebody has built around a backbone of ours or of OpenMMLab keeps its names."""
    if source != 'auto':
        return to_ours(state, source)
    found = recognize(state)
    if found is None or found.name == 'mmbeit' or (found.name in OPENMMLAB and not found.exact):
        return state, found
    return convert(state, found.table), found


def select(model: nn.Module, state: StateDict) -> tuple[StateDict, dict[str, str]]:
    """The parts of a state dict that a model takes, and why it does not take the others.

    A part is what has the same first word: 'head.fc.weight' is of 'head'. Backbones are taken in any case, for they
    resize what can be resized, and refuse the rest.

    Raises:
        CheckpointError: There is nothing for a backbone of the model, or for the model at all.
    """
    own = model.state_dict()
    if STEM in own or TEXT_STEM in own:  # a backbone by itself
        inside = {key.removeprefix(NAME): tensor for key, tensor in state.items() if key.startswith(NAME)}
        return inside or state, {}
    parts: dict[str, StateDict] = {}
    for key, tensor in state.items():
        parts.setdefault(key.partition('.')[0], {})[key] = tensor
    backbones = {key.partition('.')[0] for key in own if key.endswith((STEM, TEXT_STEM))}
    kept, dropped = {}, {}
    for part, tensors in parts.items():
        here = {key: tensor.shape for key, tensor in own.items() if key.startswith(f'{part}.')}
        if part in backbones or here == {key: tensor.shape for key, tensor in tensors.items()}:
            kept.update(tensors)
        else:
            dropped[part] = _difference(tensors, own) if here else 'the model has none'
    if not kept or backbones - parts.keys():
        wanted = ' and '.join(sorted(backbones - parts.keys()))
        raise CheckpointError(
            f'it has no {wanted or "part"} for this {type(model).__name__}, it holds {", ".join(list(state)[:3])}, ...'
        )
    return kept, dropped


def _difference(tensors: StateDict, own: StateDict) -> str:
    """Why a part does not fit, in a few words."""
    for key, tensor in tensors.items():
        if key in own and own[key].shape != tensor.shape:
            return f'its {key} is {tuple(tensor.shape)}, that of the model {tuple(own[key].shape)}'
    return 'that of the model is another one'
