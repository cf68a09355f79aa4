"""Read a checkpoint file without executing anything in it. Needs torch and numpy only."""

import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

StateDict = dict[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint cannot be read; the message names the file and says what to do."""


class Sealed(type):
    """Class whose attributes a file cannot set."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f'the file sets {cls.__name__}.{name}')


class Shell(metaclass=Sealed):
    """Stands in for a class that a file names: holds what the file says of an object, and runs none of its code."""

    dump_patches = False  # torch reads it before it compares sources


# Modules that OpenAI pickled whole, code and all (encoder.pkl and decoder.pkl of the DALL-E release).
_SHELLS = tuple(
    (Sealed(name.rpartition('.')[2], (Shell,), {'__module__': 'shell'}), name)
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


def _load(path: Path, map_location: Any, allowed: list) -> Any:
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError:
        if zipfile.is_zipfile(path):
            raise
        # Before torch 1.6 a pickled module went with its source code, which the weights-only unpickler refuses.
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that the source of a shell differs
            return torch.load(path, map_location=map_location, pickle_module=_shells_only(), weights_only=False)


def _shells_only() -> SimpleNamespace:
    """A pickle module that knows what a pickled module consists of, and no other name."""
    names = {
        **{name: shell for shell, name in _SHELLS},
        '__builtin__.set': set,
        'collections.OrderedDict': OrderedDict,
        'torch.device': torch.device,
        # Not the functions themselves: a file can set attributes of what it names.
        'torch._utils._rebuild_tensor_v2': lambda *args: torch._utils._rebuild_tensor_v2(*args),
        'torch._utils._rebuild_parameter': lambda *args: torch._utils._rebuild_parameter(*args),
    }

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if f'{module}.{name}' not in names:
                raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {module}.{name}')
            return names[f'{module}.{name}']

    def load(file: BinaryIO, **kwargs) -> Any:
        return Unpickler(file, **kwargs).load()

    return SimpleNamespace(__name__='shells_only', Unpickler=Unpickler, load=load)


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
        content = _load(path, map_location, [*_numpy_globals(), *_SHELLS, *allowed])
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(
            f'cannot read {path}: {_reason(error)}. Nothing in it was executed; if you trust its source, '
            'load it where it was made and save only its state_dict'
        ) from error
    return module_state_dict(content) if isinstance(content, Shell) else content


def _reason(error: Exception) -> str:
    text = ' '.join(str(error).split())
    if named := re.search(r'GLOBAL (\S+)', text):
        return f'it names {named[1]}, where a checkpoint holds tensors and plain values'
    if isinstance(error, (RuntimeError, ValueError)) and not isinstance(error, UnicodeError):
        return text.partition('. ')[0]
    return 'it is truncated, or was not written by torch.save'


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
