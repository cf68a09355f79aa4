"""mmengine's checkpoint loader, made safe.

mmengine tries torch's weights-only loader, and answers a refusal by unpickling without restrictions; it also allows
the builtin `getattr`, through which a file reaches any function. URLs it unpickles straight away. Here local files and
URLs go through :func:`mmbeit.checkpoint.load.read_checkpoint` instead, for `load_from`, `resume`, `Pretrained` and all.

What they hold then has our names, if it is a model of the BEiT family in the official, transformers' or timm's layout.
mmpretrain's and mmseg's files stay as they are here, since this loader also serves their own models; a backbone of ours
renames what it gets of them (:mod:`mmbeit.checkpoint.backbone`).
"""

import os
from typing import Any

from mmengine.dist import barrier
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from mmbeit.checkpoint.formats import OPENMMLAB, recognize, unwrap
from mmbeit.checkpoint.keymap import convert
from mmbeit.checkpoint.load import CheckpointError, read_weights


def _history_method(owner: Any, name: str) -> Any:
    """The one thing that an honest Runner checkpoint uses `getattr` for: four methods of its log buffers."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise ValueError(f'attribute {name!r} refused')


RUNNER_GLOBALS = (HistoryBuffer, (_history_method, 'builtins.getattr'), (_history_method, '__builtin__.getattr'))


# What the checkpoint of a Runner holds next to 'state_dict', to go on from. Its tensors outlive the loading.
RUN_STATE = ('optimizer', 'message_hub', 'param_schedulers')


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a local checkpoint, a Runner's included. mmengine's log cuts `load_from_` off this name."""
    map_location = map_location or 'cpu'
    content = read_weights(filename, map_location, RUNNER_GLOBALS)
    if isinstance(content, dict) and 'state_dict' in content and any(key in content for key in RUN_STATE):
        return read_weights(filename, map_location, RUNNER_GLOBALS, mmap=False)
    try:
        return with_our_names(content)
    except CheckpointError as error:
        raise CheckpointError(f'{filename}: {error}') from error


def with_our_names(content: Any) -> Any:
    """The same checkpoint in our layout, if it is of the BEiT family; any other one as it is.

    Left as they are, too: mmpretrain's and mmseg's files, and those with keys that no layout of the family has.
    Whoever has built something around a BEiT reads his files through here.

    Raises:
        CheckpointError: It is of the family, and there are keys too few, or of the wrong shape.
    """
    if not isinstance(content, dict):
        return content
    try:
        state = unwrap(content)
    except CheckpointError:
        return content
    found = recognize(state)
    if found is None or (found.kind.startswith('dvae') and found.name != 'hf'):
        return content  # the tokenizer knows the names of OpenAI
    if found.name in ('mmbeit', *OPENMMLAB):
        return content if 'state_dict' in content else {'state_dict': state}
    if found.problems.unexpected:
        return content
    meta = content.get('meta')
    return {'state_dict': convert(state, found.table), 'meta': meta if isinstance(meta, dict) else {}}


def load_from_hub(filename: str, map_location: Any = None) -> Any:
    """Download a repository of the Hugging Face hub, on the first process of each node, and read it from the cache."""
    if int(os.environ.get('LOCAL_RANK', 0)) == 0:
        content = load_from_local(filename, map_location)
    barrier()
    return content if int(os.environ.get('LOCAL_RANK', 0)) == 0 else load_from_local(filename, map_location)


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Download a checkpoint into the cache, on the first process of each node, and read it from there."""
    from mmbeit.apis.weights import resolve_weights

    return load_from_local(str(resolve_weights(filename)), map_location)


def use_safe_checkpoint_loading() -> None:
    """Put these loaders in the place of mmengine's, for this process."""
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.register_scheme(['http://', 'https://'], load_from_http, force=True)
    CheckpointLoader.register_scheme('hf://', load_from_hub, force=True)
