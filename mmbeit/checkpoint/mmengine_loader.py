"""mmengine's checkpoint loader, made safe.

mmengine tries torch's weights-only loader, and answers a refusal by unpickling without restrictions; it also allows
the builtin `getattr`, through which a file reaches any function. URLs it unpickles straight away. Here local files and
URLs go through :func:`mmbeit.checkpoint.load.read_checkpoint` instead, for `load_from`, `resume`, `Pretrained` and all.
"""

from typing import Any

from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from mmbeit.checkpoint.load import read_checkpoint


def _history_method(owner: Any, name: str) -> Any:
    """The one thing that an honest Runner checkpoint uses `getattr` for: four methods of its log buffers."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise ValueError(f'attribute {name!r} refused')


RUNNER_GLOBALS = (HistoryBuffer, (_history_method, 'builtins.getattr'), (_history_method, '__builtin__.getattr'))


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a local checkpoint, a Runner's included. mmengine's log cuts `load_from_` off this name."""
    return read_checkpoint(filename, map_location or 'cpu', RUNNER_GLOBALS)


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Download a checkpoint into the cache, on the first process of each node, and read it from there."""
    from mmbeit.apis.weights import resolve_weights

    return load_from_local(str(resolve_weights(filename)), map_location)


def use_safe_checkpoint_loading() -> None:
    """Put both loaders in the place of mmengine's, for this process."""
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.register_scheme(['http://', 'https://'], load_from_http, force=True)
