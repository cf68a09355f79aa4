"""Read a checkpoint file without executing anything in it. Needs torch and numpy only."""

import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

StateDict = dict[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint cannot be read; the message names the file and says what to do."""


class Shell:
    """Stands in for a class that a file names: holds what the file says of an object, and runs none of its code."""


# Modules that OpenAI pickled whole, code and all (encoder.pkl and decoder.pkl of the DALL-E release).
_SHELLS = tuple(
    (type(name.rpartition('.')[2], (Shell,), {'__module__': 'shell'}), name)
    for name in (
        'dall_e.encoder.Encoder',
        'dall_e.encoder.EncoderBlock',
        'dall_e.decoder.Decoder',
        'dall_e.decoder.DecoderBlock',
        'dall_e.utils.Conv2d',
        'torch.nn.modules.container.Sequential',
        'torch.nn.modules.activation.ReLU',
        'torch.nn.modules.pooling.MaxPool2d',
        'torch.nn.modules.linear.Identity',
        'torch.nn.modules.upsampling.Upsample',
    )
)


def _numpy_globals() -> list:
    """What a pickled NumPy array or scalar names, in files of NumPy 1 and 2."""
    multiarray = np._core.multiarray
    dtypes = {type(np.dtype(code)) for code in ('f2', 'f4', 'f8', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'b1')}
    builders = [
        (getattr(multiarray, name), f'numpy.{core}.multiarray.{name}')
        for core in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    ]
    return [np.ndarray, np.dtype, *dtypes, *builders]


def read_checkpoint(path: str | os.PathLike, map_location: Any = 'cpu', allowed: Iterable = ()) -> Any:
    """Read what `torch.save` wrote, under torch's weights-only unpickler and a fixed list of names.

    Args:
        path: A local file. OpenAI's pickled DALL-E modules are read, too: as their state dict.
        map_location: As for `torch.load`.
        allowed: Further classes or functions, or (object, 'name in the file') pairs, that the file may name. They are
            called with what the file says: list nothing that can reach other code.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is truncated, is no checkpoint, or names something that is not on the list.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'no such checkpoint: {path}')
    if path.stat().st_size == 0:
        raise CheckpointError(f'{path} is empty: expected a checkpoint written by torch.save')
    try:
        with torch.serialization.safe_globals([*_numpy_globals(), *_SHELLS, *allowed]):
            content = torch.load(path, map_location=map_location, weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if 'Unsupported global' in str(error) or 'Weights only load failed' in reason:
            name = next((word for word in str(error).split() if word.count('.') and 'GLOBAL' in str(error)), '')
            reason = f'it is truncated, or holds more than tensors and plain values {name}'.rstrip()
        raise CheckpointError(
            f'cannot read {path}: {reason}. Nothing in it was executed; if you trust its source, '
            'load it where it was made and save only its state_dict'
        ) from error
    return module_state_dict(content) if isinstance(content, Shell) else content


def module_state_dict(module: Shell) -> StateDict:
    """State dict of a pickled module that was read as a tree of shells."""
    parts = vars(module)
    state = {
        name: tensor.detach()
        for group in ('_parameters', '_buffers')
        for name, tensor in parts.get(group, {}).items()
        if tensor is not None
    }
    for name, child in parts.get('_modules', {}).items():
        if child is not None:
            state.update({f'{name}.{key}': tensor for key, tensor in module_state_dict(child).items()})
    return state
