"""From pixels to tokens."""

import torch
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """One linear map per patch: (B, C, h * p, w * p) to (B, D, h, w)."""

    def __init__(self, in_channels: int, dim: int, patch_size: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f'{height} x {width} pixels are not a whole number of patches of {self.patch_size}')
        return self.proj(x)


def substitute_masked(x: Tensor, mask: Tensor, mask_token: Tensor) -> Tensor:
    """Replace the tokens (B, N, D) by the mask token (1, 1, D) wherever `mask` (B, N) is True.

    Raises:
        ValueError: The mask does not have one entry per patch.
    """
    if mask.shape != x.shape[:2]:
        raise ValueError(f'mask has shape {tuple(mask.shape)}, the patches have {tuple(x.shape[:2])}')
    return torch.where(mask.unsqueeze(-1), mask_token, x)
