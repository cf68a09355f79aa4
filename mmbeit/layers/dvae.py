"""The encoder and decoder of DALL-E's discrete VAE (https://arxiv.org/abs/2102.12092, appendix A.1).

Names of parameters are those of OpenAI's release. Sizes are free; the defaults are OpenAI's.
"""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PIXEL_MARGIN = 0.1  # the logit-Laplace likelihood is not defined at 0 and 1, so pixels are squeezed away from them


def map_pixels(images: Tensor) -> Tensor:
    """Images in [0, 1] to the range that the networks know, [0.1, 0.9]."""
    return (1 - 2 * PIXEL_MARGIN) * images + PIXEL_MARGIN


def unmap_pixels(pixels: Tensor) -> Tensor:
    """The inverse of :func:`map_pixels`, clamped to [0, 1]."""
    return ((pixels - PIXEL_MARGIN) / (1 - 2 * PIXEL_MARGIN)).clamp(0, 1)


def logit_laplace_nll(pixels: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Negative log likelihood of mapped pixels in (0, 1), per element, of any one shape (DALL-E, appendix A.3)."""
    deviation = (torch.logit(pixels) - mean).abs() * torch.exp(-log_scale)
    return deviation + log_scale + math.log(2) + torch.log(pixels * (1 - pixels))


class Conv2d(nn.Module):
    """Convolution with stride 1 that keeps the size, under the parameter names `w` and `b`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        self.w = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.b = nn.Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.w, std=1 / math.sqrt(self.w[0].numel()))
        nn.init.zeros_(self.b)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, self.b, padding=self.w.shape[-1] // 2)


class ResidualBlock(nn.Module):
    """Four convolutions on a bottleneck, added to the input with a gain that falls with the depth of the network.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, a multiple of 4.
        kernel_sizes: Of the four convolutions: (3, 3, 3, 1) in the encoder, (1, 3, 3, 3) in the decoder.
        num_layers: Residual blocks in the whole network.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_sizes: tuple[int, ...], num_layers: int):
        super().__init__()
        hidden = out_channels // 4
        widths = [in_channels, hidden, hidden, hidden, out_channels]
        layers = OrderedDict()
        for i, kernel_size in enumerate(kernel_sizes, 1):
            layers[f'relu_{i}'] = nn.ReLU()
            layers[f'conv_{i}'] = Conv2d(widths[i - 1], widths[i], kernel_size)
        self.res_path = nn.Sequential(layers)
        self.id_path = nn.Identity() if in_channels == out_channels else Conv2d(in_channels, out_channels, 1)
        self.gain = 1 / num_layers**2

    def forward(self, x: Tensor) -> Tensor:
        return self.id_path(x) + self.gain * self.res_path(x)


def residual_groups(widths: list[int], num_blocks: int, kernel_sizes: tuple[int, ...], between: str) -> OrderedDict:
    """Groups of residual blocks, one per width after the first, with a pooling or an upsampling between them."""
    groups = OrderedDict()
    num_groups = len(widths) - 1
    for g in range(num_groups):
        blocks = OrderedDict()
        for b in range(num_blocks):
            blocks[f'block_{b + 1}'] = ResidualBlock(
                widths[g + (b > 0)], widths[g + 1], kernel_sizes, num_groups * num_blocks
            )
        if g < num_groups - 1:
            blocks[between] = nn.MaxPool2d(2) if between == 'pool' else nn.Upsample(scale_factor=2, mode='nearest')
        groups[f'group_{g + 1}'] = nn.Sequential(blocks)
    return groups


class DVAEEncoder(nn.Module):
    """Mapped pixels (B, 3, s*h, s*w) to logits over the codes (B, num_codes, h, w), with s = 2 ** (num_groups - 1)."""

    def __init__(
        self, num_codes: int = 8192, width: int = 256, num_groups: int = 4, num_blocks: int = 2, in_channels: int = 3
    ):
        super().__init__()
        widths = [width] + [width * 2**g for g in range(num_groups)]
        self.blocks = nn.Sequential(
            OrderedDict(
                input=Conv2d(in_channels, width, 7),
                **residual_groups(widths, num_blocks, (3, 3, 3, 1), 'pool'),
                output=nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=Conv2d(widths[-1], num_codes, 1))),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class DVAEDecoder(nn.Module):
    """One-hot or relaxed codes (B, num_codes, h, w) to the mean and log scale (B, 2 * 3, s*h, s*w) of logit pixels."""

    def __init__(
        self,
        num_codes: int = 8192,
        width: int = 256,
        num_groups: int = 4,
        num_blocks: int = 2,
        init_width: int = 128,
        out_channels: int = 3,
    ):
        super().__init__()
        widths = [init_width] + [width * 2**g for g in reversed(range(num_groups))]
        self.blocks = nn.Sequential(
            OrderedDict(
                input=Conv2d(num_codes, init_width, 1),
                **residual_groups(widths, num_blocks, (1, 3, 3, 3), 'upsample'),
                output=nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=Conv2d(width, 2 * out_channels, 1))),
            )
        )

    def forward(self, codes: Tensor) -> Tensor:
        return self.blocks(codes)

    def embed_and_decode(self, ids: Tensor) -> Tensor:
        """The same for hard codes given as ids (B, h, w), without building their one-hot form."""
        first, rest = self.blocks[0], self.blocks[1:]
        return rest(F.embedding(ids, first.w[:, :, 0, 0].t()).permute(0, 3, 1, 2) + first.b[:, None, None])
