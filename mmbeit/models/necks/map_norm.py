"""Norm of a backbone's maps."""

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmbeit.registry import MODELS


@MODELS.register_module()
class MapNorm(BaseModule):
    """Normalise every map by itself. With one linear layer behind it, it makes a linear probe of a frozen backbone.

    Args:
        in_channels: Channels of each map.
        norm_cfg: The norm of every map; `dict(type='BN')` by default.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self, in_channels: Sequence[int], norm_cfg: dict | None = None, init_cfg: dict | list[dict] | None = None
    ):
        super().__init__(init_cfg)
        norm_cfg = norm_cfg or dict(type='BN')
        self.norms = nn.ModuleList(build_norm_layer(norm_cfg, channels)[1] for channels in in_channels)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, D, h, w) of the same shapes.

        Raises:
            ValueError: There are more maps or fewer than norms.
        """
        if len(maps) != len(self.norms):
            raise ValueError(f'in_channels is of {len(self.norms)} maps, but there are {len(maps)}')
        return tuple(norm(x) for norm, x in zip(self.norms, maps, strict=True))
