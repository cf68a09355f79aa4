"""What becomes of a class token before it is classified."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmbeit.layers.init import init_transformer_
from mmbeit.layers.multiway import EPS
from mmbeit.registry import MODELS


@MODELS.register_module()
class Pooler(BaseModule):
    """LayerNorm, linear layer and tanh: of BEiT-3 for VQA, whose encoder has no final norm.

    Args:
        embed_dims: Width D of the features.
        init_cfg: mmengine's initialisation config, applied after the official one.
    """

    def __init__(self, embed_dims: int, init_cfg: dict | list[dict] | None = None):
        super().__init__(init_cfg)
        self.norm = nn.LayerNorm(embed_dims, eps=EPS)
        self.dense = nn.Linear(embed_dims, embed_dims)

    def init_weights(self) -> None:
        if not self.is_init:
            init_transformer_(self, bound=0.02)
            super().init_weights()

    def forward(self, x: Tensor) -> Tensor:
        """Features (..., D) of features (..., D)."""
        return torch.tanh(self.dense(self.norm(x)))
