"""Maps of four sizes from a transformer that has one size only."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmbeit.registry import MODELS


@MODELS.register_module()
class FeaturePyramid(BaseModule):
    """Resize four maps of one size to 4, 2, 1 and 1/2 times that size, for decoders made for convolutional networks.

    For patches of 16 pixels the strides are 4, 8, 16 and 32 (unilm:beit/semantic_segmentation/backbone/beit.py, `fpn1`
    to `fpn4`; mmseg's `Feature2Pyramid`).

    Args:
        in_channels: Channels D of every map.
        norm_cfg: Norm between the two steps of the largest map; `dict(type='BN')` by default. On several GPUs say
            `dict(type='SyncBN')`, which is the recipes' and needs a GPU.
        init_cfg: mmengine's initialisation config; PyTorch's own initialisation by default, as officially.
    """

    def __init__(self, in_channels: int, norm_cfg: dict | None = None, init_cfg: dict | list[dict] | None = None):
        super().__init__(init_cfg)
        self.upsample_4x = nn.Sequential(
            nn.ConvTranspose2d(in_channels, in_channels, kernel_size=2, stride=2),
            build_norm_layer(norm_cfg or dict(type='BN'), in_channels)[1],
            nn.GELU(),
            nn.ConvTranspose2d(in_channels, in_channels, kernel_size=2, stride=2),
        )
        self.upsample_2x = nn.Sequential(nn.ConvTranspose2d(in_channels, in_channels, kernel_size=2, stride=2))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Resize the maps.

        Args:
            maps: Four, (B, D, h, w) each, from early to late blocks.

        Returns:
            (B, D, 4h, 4w), (B, D, 2h, 2w), (B, D, h, w) and (B, D, h // 2, w // 2).

        Raises:
            ValueError: There are not four maps.
        """
        if len(maps) != 4:
            raise ValueError(
                f'a feature pyramid is made of 4 maps, not of {len(maps)}: give the backbone 4 out_indices'
            )
        first, second, third, fourth = maps
        kernel = [min(2, side) for side in fourth.shape[-2:]]  # a side of one cell stays
        return self.upsample_4x(first), self.upsample_2x(second), third, F.max_pool2d(fourth, kernel)
