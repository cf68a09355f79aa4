"""Weights on their way into a backbone, whoever loads them: other names become ours, and what does not fit is refused.

mmengine loads without being strict: of weights of another size it warns, and goes on with those that were drawn.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from mmbeit.checkpoint.formats import recognize
from mmbeit.checkpoint.keymap import convert
from mmbeit.checkpoint.layout import Problems
from mmbeit.checkpoint.load import CheckpointError, StateDict

NAME = 'backbone.'  # where a backbone is in our layouts
STEM = 'patch_embed.proj.weight'
# Parts of names that a backbone of ours never has, and every other one does.
THEIRS = re.compile(r'gamma_[12]|lambda_[12]|relative_position_|layers?\.\d')
# What starts fresh in another task, or is not used in it; grids are noted by us alone.
FREE = re.compile(r'mask_token|(fc_)?norm\.(weight|bias)|rel_pos_bias\.\d+\.grid')


def rename_backbone(state: StateDict, prefix: str) -> None:
    """Give a backbone's part of a state dict our names, in place, if it is in another layout.

    Args:
        state: Of a model, or of a part of it.
        prefix: Where the backbone is in it, with a dot at the end; or nothing.

    Raises:
        CheckpointError: It is of the BEiT family, and there are keys too many or too few.
    """
    theirs = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    found = recognize(theirs) if any(map(THEIRS.search, theirs)) else None
    if found is None:
        return
    ours = convert(theirs, found.table)
    for key in theirs:
        del state[prefix + key]
    state.update({prefix + key.removeprefix(NAME): ours[key] for key in ours if key.startswith(NAME)})


def check_backbone(state: Mapping[str, Tensor], prefix: str, own: Mapping[str, Tensor]) -> None:
    """Compare the weights for a backbone with what it has. Tables may be of another grid.

    A state dict without a stem is not of a whole backbone (an adapter's, a shard), and passes.

    Args:
        state: Under our names.
        prefix: As for :func:`rename_backbone`.
        own: State dict of the backbone.

    Raises:
        CheckpointError: A key is missing, left over, or of another shape; the message lists them all.
    """
    if prefix + STEM not in state:
        return
    given = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    problems = Problems(_bound(own.keys() - given.keys()), _bound(given.keys() - own.keys()))
    for key in own.keys() & given.keys():
        rows = int(key.endswith('.table'))  # of a table they go with the grid
        if not FREE.fullmatch(key) and own[key].shape[rows:] != given[key].shape[rows:]:
            problems.wrong.append(f'{key} is {tuple(given[key].shape)}, expected {tuple(own[key].shape)}')
    problems.wrong.sort()
    if problems:
        raise CheckpointError(f'the weights do not fit this backbone: {problems}')


def _bound(keys: Iterable[str]) -> list[str]:
    return sorted(key for key in keys if not FREE.fullmatch(key))
