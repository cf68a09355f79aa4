"""Read a checkpoint file without executing anything in it. Needs torch and numpy only."""

import json
import os
import pickle
import re
import warnings
import zipfile
from argparse import Namespace  # official files keep the arguments of their run
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


def _load(path: Path, map_location: Any, allowed: list, mmap: bool) -> Any:
    try:
        with torch.serialization.safe_globals(allowed):
            mmap = mmap and zipfile.is_zipfile(path)
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
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


def read_checkpoint(
    path: str | os.PathLike, map_location: Any = 'cpu', allowed: Iterable = (), mmap: bool = False
) -> Any:
    """Read what `torch.save` wrote, under torch's weights-only unpickler and a fixed list of names.

    Args:
        path: A local file. OpenAI's pickled DALL-E modules are read, too: as their state dict.
        map_location: As for `torch.load`.
        allowed: Further classes or functions, or (object, 'name in the file') pairs, that the file may name. They are
            called with what the file says: list nothing that can reach other code.
        mmap: Whether to leave the tensors on disk until they are used, where the format of the file allows it. The
            file has to stay as it is for as long.

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
        content = _load(path, map_location, [Namespace, *_numpy_globals(), *_SHELLS, *allowed], mmap)
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


def read_weights(
    source: str | os.PathLike, map_location: Any = 'cpu', allowed: Iterable = (), mmap: bool = True
) -> Any:
    """Read a file, a folder or a repository of weights.

    Args:
        source: A file of `torch.save` or of safetensors; a folder as transformers writes it, in one file or in shards;
            or `hf://owner/name`, with `@revision` after it if need be, of which a copy is kept in the cache of
            huggingface_hub.
        map_location, allowed, mmap: As for :func:`read_checkpoint`.

    Returns:
        What the file holds; of safetensors and of a folder a state dict.

    Raises:
        FileNotFoundError: There is no such file or folder.
        CheckpointError: It cannot be read; the message says why.
    """
    if str(source).startswith('hf://'):
        return read_weights(_snapshot(str(source)), map_location, allowed, mmap)
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, map_location, allowed, mmap)
    if path.suffix == '.safetensors':
        return _read_safetensors(path, map_location)
    return read_checkpoint(path, map_location, allowed, mmap)


def _read_safetensors(path: Path, map_location: Any) -> StateDict:
    if not path.is_file():
        raise FileNotFoundError(f'no such checkpoint: {path}')
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(f'{path} needs safetensors: pip install safetensors') from error
    try:
        return load_file(path, str(map_location or 'cpu'))
    except Exception as error:  # it has an exception of its own
        raise CheckpointError(f'cannot read {path}: it is truncated, or no file of safetensors') from error


def _read_folder(folder: Path, map_location: Any, allowed: Iterable, mmap: bool) -> StateDict:
    for name in ('model.safetensors', 'pytorch_model.bin'):
        if (folder / name).is_file():
            return read_weights(folder / name, map_location, allowed, mmap)
        index = folder / f'{name}.index.json'
        if index.is_file():
            return _read_shards(index, map_location, allowed, mmap)
    raise CheckpointError(f'{folder} holds neither model.safetensors nor pytorch_model.bin, nor the index of either')


def _read_shards(index: Path, map_location: Any, allowed: Iterable, mmap: bool) -> StateDict:
    try:
        places = dict(json.loads(index.read_text())['weight_map'])
        if any(Path(name).name != name for name in places.values()):
            raise ValueError('a shard outside of the folder')
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f'cannot read {index}: it is no index of shards ({error})') from error
    state = {}
    for name in sorted(set(places.values())):
        state.update(read_weights(index.with_name(name), map_location, allowed, mmap))
    if absent := sorted(places.keys() - state.keys()):
        raise CheckpointError(f'the shards of {index} lack {", ".join(absent[:4])} ({len(absent)} keys)')
    return state


def _snapshot(url: str) -> Path:
    name, _, revision = url.removeprefix('hf://').partition('@')
    instead = f'; or download it yourself and give the path of the folder instead of {url}'
    if not re.fullmatch(r'\w[\w.-]*/\w[\w.-]*', name):
        raise CheckpointError(f'{url} is not of the form hf://owner/name')
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(f'{url} needs huggingface_hub: pip install huggingface_hub{instead}') from error
    try:
        for patterns in (['*.safetensors', '*.json'], ['pytorch_model*', '*.json']):
            folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
            if any(folder.glob('*.safetensors')) or any(folder.glob('pytorch_model*.bin')):
                return folder
    except Exception as error:  # of the network, of the hub, or that it is not in the cache
        raise CheckpointError(f'cannot download {url}: {_first_sentence(error)}{instead}') from error
    raise CheckpointError(f'{url} holds no weights that mmbeit knows (*.safetensors, pytorch_model*.bin)')


def _first_sentence(error: Exception) -> str:
    text = ' '.join(str(error).split()) or type(error).__name__
    return text.partition('. ')[0][:160]
