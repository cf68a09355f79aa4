"""VQ-KD trained to the end, small, on images whose codebook the official quantizer loses: what is left of 512 codes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from mmbeit.layers.quantizer import code_usage
from mmbeit.models import VQKD, TargetGenerator

NUM_CODES = 512
NUM_HELD_OUT = 360
TOKENIZER = dict(
    arch=dict(embed_dims=64, num_layers=1, num_heads=2, feedforward_channels=128),
    img_size=16,
    patch_size=4,
    num_codes=NUM_CODES,
)


class PixelTeacher(TargetGenerator):
    """A random function of the pixels of a patch."""

    embed_dims = 32

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(16, self.embed_dims)
        self.requires_grad_(False).eval()

    def targets(self, images: Tensor) -> Tensor:
        return torch.tanh(4 * self.proj(F.unfold(images[:, :1], 4, stride=4).transpose(1, 2) - 0.5))


def digits() -> Tensor:
    """Scans of digits, 16 x 16 pixels."""
    images = torch.from_numpy(load_digits().images).float()[:, None] / 16
    return F.interpolate(images, 16, mode='bicubic').clamp(0, 1)


def tiles() -> Tensor:
    """Images of which each patch has one of eight greys."""
    greys = torch.from_numpy(np.random.default_rng(0).integers(8, size=(1800, 1, 4, 4))).float() / 7
    return greys.repeat_interleave(4, 2).repeat_interleave(4, 3)


def usage_after_training(images: Tensor, num_steps: int, revive_below: float) -> float:
    """Percent of the codes that occur in images that were not trained on."""
    images = images.repeat(1, 3, 1, 1)
    held_out, images = images[:NUM_HELD_OUT], images[NUM_HELD_OUT:]
    model = VQKD({**TOKENIZER, 'revive_below': revive_below}, 1, dict(type=PixelTeacher))
    model.init_weights()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, total_iters=num_steps)
    for _ in range(num_steps):
        losses = model(images[torch.randint(len(images), (64,))], mode='loss')
        model.parse_losses(losses)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()
    ids = model.tokenizer(held_out).ids
    return code_usage(torch.bincount(ids.flatten(), minlength=NUM_CODES)).item()


@pytest.mark.parametrize(('images', 'num_steps'), [(digits, 600), (tiles, 1200)])
def test_revival_keeps_nine_tenths_of_the_codes_in_use(images, num_steps):
    assert usage_after_training(images(), num_steps, revive_below=0.1) > 90


@pytest.mark.parametrize(('images', 'expected'), [(digits, 30), (tiles, 3)])
def test_official_quantizer_loses_most_of_them_at_once(images, expected):
    """And has no way to get them back."""
    assert usage_after_training(images(), 100, revive_below=0) < expected
