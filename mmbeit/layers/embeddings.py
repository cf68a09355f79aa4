"""From pixels to tokens."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """One linear map of all patches.

    Its weights are those of a convolution, as in every checkpoint; the product of patches laid out one after another is
    the faster one.

    Args:
        in_channels: Channels C of the images.
        dim: Width D of the tokens.
        patch_size: Side p of a patch in pixels.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, h * w, D) of images (B, C, h * p, w * p), row by row.

        Raises:
            ValueError: The images are not a whole number of patches, or have another number of channels.
        """
        B, C, height, width = x.shape
        p, proj = self.patch_size, self.proj
        if height % p or width % p:
            raise ValueError(f'{height} x {width} pixels are not a whole number of patches of {p}')
        if proj.in_channels != C:
            raise ValueError(f'images of {C} channels, where {proj.in_channels} are expected')
        patches = x.unflatten(3, (-1, p)).unflatten(2, (-1, p)).permute(0, 2, 4, 1, 3, 5)  # (B, h, w, C, p, p)
        return F.linear(patches.flatten(3).flatten(1, 2), proj.weight.flatten(1), proj.bias)


def pad_to_patches(x: Tensor, patch_size: int) -> Tensor:
    """Zeros on the right of and below the images (B, C, height, width), up to a whole number of patches.

    So do recipes of segmentation with a crop that is larger than its image, after it was normalised.
    """
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % patch_size, 0, -height % patch_size))


def remove_padding(x: Tensor, size: Sequence[int], patch_size: int) -> Tensor:
    """Map (B, D, h, w) of padded images, sampled anew so that its cells divide what was not padding.

    Every cell of the last row or column has seen some of the image, so none of them can be cut off. But a decoder
    takes a map for one of the image and resizes it to its size: with the padding still in it everything would end up
    too far up and left, by up to `patch_size - 1` pixels at the far border (mmseg's `PatchEmbed(padding='corner')`).

    Args:
        x: What came out for :func:`pad_to_patches` of the images.
        size: Height and width of the images in pixels, before.
        patch_size: Side of a patch in pixels.

    Returns:
        (B, D, h, w): `x` itself where nothing was padded, else linear between its cells.
    """
    for dim, pixels in ((-2, size[0]), (-1, size[1])):
        cells = x.shape[dim]
        if pixels != cells * patch_size:
            # Not `F.interpolate`: it returns what it got where the number of cells stays, whatever the scale.
            at = (torch.arange(cells, device=x.device) + 0.5) * pixels / (cells * patch_size) - 0.5
            lower = at.clamp_(min=0).long()
            upper = (lower + 1).clamp(max=cells - 1)
            share = (at - lower).to(x.dtype).view(-1, *[1] * (-1 - dim))
            x = torch.lerp(x.index_select(dim, lower), x.index_select(dim, upper), share)
    return x


def substitute_masked(x: Tensor, mask: Tensor, mask_token: Tensor) -> Tensor:
    """Replace the tokens (B, N, D) by the mask token (1, 1, D) wherever `mask` (B, N) is True.

    Raises:
        ValueError: The mask does not have one entry per patch.
    """
    if mask.shape != x.shape[:2]:
        raise ValueError(f'mask has shape {tuple(mask.shape)}, the patches have {tuple(x.shape[:2])}')
    return torch.where(mask.unsqueeze(-1), mask_token, x)
