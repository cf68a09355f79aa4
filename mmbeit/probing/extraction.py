"""What a frozen backbone makes of images: features of every block, or the patches of one."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmbeit.apis.data import DataConfig
from mmbeit.apis.images import ImageError, read_image
from mmbeit.models.backbones.base import Backbone
from mmbeit.probing.images import LabelledImages


def pool(tokens: Tensor) -> Tensor:
    """Feature of a block, (B, 2D) float32, of its tokens (B, 1 + N, D): the class token, then the mean of the patches.

    The same as in :class:`mmbeit.models.heads.linear_probe.LinearProbeHead`, and officially
    (unilm:beit/run_linear_eval.py).
    """
    return torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1).float()


def patches(tokens: Tensor) -> Tensor:
    """The patches, (B, N, D) float32, of a block's tokens (B, 1 + N, D)."""
    return tokens[:, 1:].float()


def after_blocks(
    backbone: Backbone, x: Tensor, blocks: Sequence[int], function: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Apply a function to the tokens after some blocks.

    The tokens of a block are not kept once the function has seen them, and a final norm is not applied.

    Args:
        backbone: In eval mode.
        x: Normalised images (B, C, height, width).
        blocks: Ascending, 0-based. Blocks after the last one of them are not run.
        function: Takes tokens (B, 1 + N, D).
    """
    outs = []

    def keep(_block: nn.Module, _inputs: tuple, out: Tensor | tuple) -> None:
        outs.append(function(out if isinstance(out, Tensor) else out[0]['vision']))  # of BEiT, or of BEiT-3

    hooks = [backbone.blocks[i].register_forward_hook(keep) for i in blocks]
    try:
        backbone.block_tokens(x, None, [max(blocks)])
    finally:
        for hook in hooks:
            hook.remove()
    return outs


class Kind(NamedTuple):
    """One kind of features.

    Attributes:
        name: 'pooled', or 'patches' and the number of the block.
        shape: Of the features of one image: (blocks, 2D), or (N, D).
        compute: From normalised images to float32 features, (B, *shape).
    """

    name: str
    shape: tuple[int, ...]
    compute: Callable[[Tensor], Tensor]

    def num_bytes(self, dtype: torch.dtype) -> int:
        """What the features of one image take in a dtype."""
        return prod(self.shape) * dtype.itemsize


@dataclass(frozen=True)
class Extractor:
    """A frozen backbone and what it expects of images.

    Args:
        backbone: In eval mode, on the device to run on.
        data: Its size is a whole number of patches.
        amp: Whether to run under bfloat16 autocast.
    """

    backbone: Backbone
    data: DataConfig
    amp: bool = False

    @property
    def device(self) -> torch.device:
        return self.backbone.cls_token.device

    @property
    def num_blocks(self) -> int:
        return len(self.backbone.blocks)

    def pooled(self) -> Kind:
        """The pooled features of every block, (B, blocks, 2D)."""
        blocks = range(self.num_blocks)
        shape = len(blocks), 2 * self.backbone.embed_dims
        return Kind('pooled', shape, lambda x: torch.stack(after_blocks(self.backbone, x, blocks, pool), dim=1))

    def patches(self, block: int) -> Kind:
        """The patches of a block, (B, N, D)."""
        count = (self.data.size[0] // self.backbone.patch_size) * (self.data.size[1] // self.backbone.patch_size)
        shape = count, self.backbone.embed_dims
        return Kind(f'patches{block}', shape, lambda x: after_blocks(self.backbone, x, [block], patches)[0])

    @torch.no_grad()
    def __call__(self, kind: Kind, images: Tensor) -> Tensor:
        """Features (B, *shape) in float32 of RGB images (B, 3, height, width) in [0, 255]."""
        x = self.data.normalize(images.to(self.device))
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.amp):
            return kind.compute(x)

    @cached_property
    def identity(self) -> dict:
        """All that the features of an image depend on."""
        return dict(weights=fingerprint(self.backbone), data=asdict(self.data), amp=self.amp)


def fingerprint(backbone: Backbone) -> str:
    """A hash of the weights of a backbone, and of what a state dict does not show."""
    digest = hashlib.sha256(repr((backbone.patch_size, backbone.blocks[0].attn.num_heads)).encode())
    for name, tensor in sorted(backbone.state_dict().items()):
        if name.startswith('norm.') or name.startswith('fc_norm.') or name == 'mask_token':
            continue  # not used
        digest.update(f'{name} {tuple(tensor.shape)} {tensor.dtype}'.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class _Reader(Dataset):
    """Images cut to size, (3, height, width) uint8, or the message why one cannot be read."""

    def __init__(self, images: LabelledImages, data: DataConfig):
        self.images = images
        self.data = data

    def __getitem__(self, index: int) -> tuple[int, Tensor | str]:
        try:
            picture = self.data.crop_image(read_image(self.images.path(index)))
        except ImageError as error:
            return index, str(error)
        return index, torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def read_batches(
    images: LabelledImages, data: DataConfig, batches: Iterable[Sequence[int]], num_workers: int
) -> Iterator[tuple[list[int], Tensor | None, list[str]]]:
    """Read images.

    Args:
        images: All of them.
        data: How to cut them.
        batches: Their numbers, batch by batch.
        num_workers: Processes that read.

    Yields:
        Numbers of those that could be read, these as (B, 3, height, width) uint8 or None where there are none, and
        messages of the others.
    """
    loader = DataLoader(
        _Reader(images, data), batch_sampler=list(batches), num_workers=num_workers, collate_fn=lambda items: items
    )
    for items in loader:
        good = [(index, pixels) for index, pixels in items if not isinstance(pixels, str)]
        numbers = [index for index, _ in good]
        pixels = torch.stack([pixels for _, pixels in good]) if good else None
        yield numbers, pixels, [message for _, message in items if isinstance(message, str)]
