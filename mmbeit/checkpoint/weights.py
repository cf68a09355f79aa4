"""Weights of any format, under our names; and into a model of ours."""

import logging
import os
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from mmbeit.checkpoint.formats import Format, to_ours, unwrap
from mmbeit.checkpoint.load import CheckpointError, StateDict, read_weights

# Parts of a backbone that start fresh in another task, or are not used in it.
_FREE = ('mask_token', 'norm.weight', 'norm.bias', 'fc_norm.weight', 'fc_norm.bias')


class Loaded(NamedTuple):
    """What :func:`load_into` has done.

    Attributes:
        format: What the file was recognised as.
        dropped: Parts of the file, such as 'head', that the model has no use for.
        fresh: Parameters of the model that the file says nothing of.
    """

    format: Format
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
    """Load a file of any format into a model whose backbone is at `backbone`.

    The backbone has to fit, whatever the size of the image; any other part is loaded if it fits as a whole, else it
    keeps the weights that it has, and one line says so.

    Args:
        model: What to load into.
        path, source, ema: As for :func:`load_state`.
        log: Takes that line; by default a warning of Python's logging.

    Raises:
        CheckpointError: The backbone does not fit; the message lists the keys.
    """
    log = log or logging.getLogger(__name__).warning
    state, found = load_state(path, source, ema)
    own = model.state_dict()
    parts: dict[str, StateDict] = {}
    for key, tensor in state.items():
        parts.setdefault(key.partition('.')[0], {})[key] = tensor
    kept, dropped = dict(parts.pop('backbone', {})), []
    for part, tensors in parts.items():
        here = {key: tensor.shape for key, tensor in own.items() if key.startswith(f'{part}.')}
        if here == {key: tensor.shape for key, tensor in tensors.items()}:
            kept.update(tensors)
            continue
        dropped.append(part)
        log(f'{path}: {part} is not loaded, {_difference(tensors, own) if here else "the model has none"}')
    try:
        missing, unexpected = model.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        text = ' '.join(str(error).split())
        raise CheckpointError(f'{path} does not fit this {type(model).__name__}: {text}') from error
    free = tuple(f'backbone.{name}' for name in _FREE)
    lacking = [key for key in missing if key.startswith('backbone.') and key not in free]
    extra = [key for key in unexpected if key not in free]
    if lacking or extra:
        raise CheckpointError(
            f'{path} ({found.table}) does not fit this {type(model).__name__}: '
            f'missing {lacking[:4]} ({len(lacking)} keys), unexpected {extra[:4]} ({len(extra)} keys)'
        )
    return Loaded(found, dropped, missing)


def _difference(tensors: StateDict, own: StateDict) -> str:
    """Why a part does not fit, in a few words."""
    for key, tensor in tensors.items():
        if key in own and own[key].shape != tensor.shape:
            return f'its {key} is {tuple(tensor.shape)}, that of the model {tuple(own[key].shape)}'
    return 'that of the model is another one'
