"""Weights on their way into a backbone, whoever loads them: other names become ours, and what does not fit is refused.

mmengine loads without being strict: of weights of another size it warns, and goes on with those that were drawn.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor

from mmbeit.checkpoint.formats import recognize
from mmbeit.checkpoint.keymap import convert
from mmbeit.checkpoint.layout import Problems
from mmbeit.checkpoint.load import CheckpointError, StateDict

NAME = 'backbone.'  # where a backbone is in our layouts


class Naming(NamedTuple):
    """What a backbone of ours has to know of names.

    Attributes:
        stem: Without it a state dict is not of a whole backbone (but of an adapter, or a shard).
        theirs: Parts of names that this backbone never has, and every other one of its kind does.
        free: What starts fresh in another task, or is not used in it; grids are noted by us alone.
    """

    stem: str
    theirs: re.Pattern
    free: re.Pattern


STEM = 'patch_embed.proj.weight'
TEXT_STEM = 'text_embed.weight'  # of an encoder without vision
BEIT = Naming(
    STEM,
    theirs=re.compile(r'gamma_[12]|lambda_[12]|relative_position_|layers?\.\d'),
    free=re.compile(r'mask_token|(fc_)?norm\.(weight|bias)|rel_pos_bias\.\d+\.grid'),
)
BEIT3 = Naming(
    STEM,
    theirs=re.compile(r'beit3\.|layers\.\d|attn\.qkv\.'),
    free=re.compile(r'mask_token|(fc_norm|norm\.(vision|text))\.(weight|bias)|pos_grid'),
)


def rename_backbone(state: StateDict, prefix: str, naming: Naming = BEIT) -> None:
    """Give a backbone's part of a state dict our names, in place, if it is in another layout.

    Args:
        state: Of a model, or of a part of it.
        prefix: Where the backbone is in it, with a dot at the end; or nothing.
        naming: Of the backbone.

    Raises:
        CheckpointError: It is of the BEiT family, and there are keys too many or too few.
    """
    theirs = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    found = recognize(theirs) if any(map(naming.theirs.search, theirs)) else None
    if found is None:
        return
    ours = convert(theirs, found.table)
    for key in theirs:
        del state[prefix + key]
    state.update({prefix + key.removeprefix(NAME): ours[key] for key in ours if key.startswith(NAME)})


def check_backbone(state: Mapping[str, Tensor], prefix: str, own: Mapping[str, Tensor], naming: Naming = BEIT) -> None:
    """Compare the weights for a backbone with what it has. Tables may be of another grid.

    A state dict without a stem is not of a whole backbone (an adapter's, a shard), and passes.

    Args:
        state: Under our names.
        prefix: As for :func:`rename_backbone`.
        own: State dict of the backbone.
        naming: Of the backbone.

    Raises:
        CheckpointError: A key is missing, left over, or of another shape; the message lists them all.
    """
    if prefix + naming.stem not in state:
        return
    given = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    missing, unexpected = (_bound(keys, naming.free) for keys in (own.keys() - given.keys(), given.keys() - own.keys()))
    problems = Problems(missing, unexpected)
    for key in own.keys() & given.keys():
        rows = int(key.endswith('.table'))  # of a table they go with the grid
        if not naming.free.fullmatch(key) and own[key].shape[rows:] != given[key].shape[rows:]:
            problems.wrong.append(f'{key} is {tuple(given[key].shape)}, expected {tuple(own[key].shape)}')
    problems.wrong.sort()
    if problems:
        raise CheckpointError(f'the weights do not fit this backbone: {problems}')


@contextmanager
def naming_files(init_cfg: dict | list[dict] | None) -> Iterator[None]:
    """Let what is wrong with weights while they are initialised say which file they are from."""
    try:
        yield
    except CheckpointError as error:
        configs = [init_cfg] if isinstance(init_cfg, dict) else init_cfg or []
        names = ', '.join(cfg['checkpoint'] for cfg in configs if 'checkpoint' in cfg)
        raise error if names in str(error) else CheckpointError(f'{names}: {error}') from error


def _bound(keys: Iterable[str], free: re.Pattern) -> list[str]:
    return sorted(key for key in keys if not free.fullmatch(key))
