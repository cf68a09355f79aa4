"""Features of four blocks, of which one alone knows the class; and images with a class that one block alone sees."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mmbeit.models import BEiT
from mmbeit.probing.features import StoredFeatures
from mmbeit.probing.task import Labelled, Task

BLOCK = 2
NUM_CLASSES = 3


def stored(*shards: Tensor) -> StoredFeatures:
    """Features of images that are numbered through the shards."""
    numbers = torch.arange(sum(map(len, shards))).split([len(shard) for shard in shards])
    return StoredFeatures(list(zip(shards, numbers, strict=True)))


def planted(count: int, shape: tuple[int, ...] = (4, 12), strength: float = 4.0, seed: int = 0) -> Labelled:
    """Noise, and in block 2 of the pooled features the class; in two shards."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_CLASSES, (count,), generator=draw)
    features = torch.randn(count, *shape, generator=draw)
    features[torch.arange(count), BLOCK, labels] += strength
    return Labelled(stored(features[: count // 3], features[count // 3 :]), labels)


def task(train: Labelled, val: Labelled, seed: int = 0) -> Task:
    held_out = torch.arange(len(train.labels)) % 4 == 0
    return Task(train, val, held_out, NUM_CLASSES, seed, torch.device('cpu'))


def planted_task(seed: int = 0, **kwargs) -> Task:
    return task(planted(240, seed=1, **kwargs), planted(120, seed=2, **kwargs), seed)


class Oracle(nn.Module):
    """Stands in for a block. It tells the class of the image in one channel of all tokens, or hides it again."""

    def __init__(self, backbone: BEiT, tells: bool):
        super().__init__()
        self.tells = tells
        self.seen = []
        backbone.patch_embed.register_forward_pre_hook(lambda _, inputs: self.see(*inputs))

    def see(self, images: Tensor) -> None:
        self.seen[:] = [images]

    def forward(self, tokens: Tensor, bias: Tensor | None) -> Tensor:
        tokens = tokens.clone()
        tokens[..., 0] = 0
        if self.tells:
            bits = self.seen[0][:, 0, 0, :8] > 0
            tokens[..., 0] = 20.0 * (bits.sum(dim=1) % 2)[:, None]
        return tokens


def write_parity_images(folder: Path, count: int, seed: int) -> None:
    """Noise of 32 pixels. The class is the parity of eight pixels, which neither lines nor neighbours find."""
    draw = np.random.default_rng(seed)
    for i in range(count):
        pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        target = folder / ('odd' if (pixels[0, :8, 0] > 127).sum() % 2 else 'even')
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target / f'{i:03}.png')
