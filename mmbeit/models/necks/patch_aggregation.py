"""Patch aggregation: what BEiT v2 adds to the prediction of visual tokens."""

import numpy as np
import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmbeit.archs import resolve_arch
from mmbeit.layers.block import Block
from mmbeit.layers.init import rescale_depth_
from mmbeit.layers.position import Bias
from mmbeit.registry import MODELS


@MODELS.register_module()
class PatchAggregationNeck(BaseModule):
    """A few more blocks on the last class token and the patches of an early block (BEiT v2, section 2.3).

    Visual tokens are predicted from the outcome, too. What the early patches lack for that can only come through the
    class token, which so learns to speak for the whole image. Of use in pretraining only.

    Reference: `VisionTransformerForMaskedImageModelingCLS` in unilm:beit2/modeling_pretrain.py.

    Args:
        arch: Size of the backbone, as there: a name, or a dict.
        early_layers: Blocks E that the patches have passed in the backbone:
            officially 9 of base's 12, 21 of large's 24.
        num_layers: Blocks K of the neck.
        layer_scale: Initial value of the layer scale, or None for none.
        drop_path_rate: As of the backbone: the neck's blocks have the rates of the ones that follow the E-th.
        with_cp: Whether to recompute activations in the backward pass, to save memory.
        init_cfg: mmengine's initialisation config, applied after the official one.

    Raises:
        ValueError: The backbone has no block between the early patches and its last output.
    """

    def __init__(
        self,
        arch: str | dict,
        early_layers: int,
        num_layers: int = 2,
        layer_scale: float | None = 0.1,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        dim, depth, num_heads, hidden_dim = resolve_arch(arch)
        if not 0 < early_layers < depth:
            raise ValueError(f'early_layers ({early_layers}) is not between 1 and {depth - 1}, below the last block')
        self.early_layers = early_layers
        self.with_cp = with_cp
        rates = np.linspace(0, drop_path_rate, max(depth, early_layers + num_layers))
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, hidden_dim, layer_scale, rate)
            for rate in rates[early_layers : early_layers + num_layers]
        )

    def forward(
        self, early: Tensor, cls_token: Tensor, attn_bias: Bias | None = None, keep: Tensor | None = None
    ) -> Tensor:
        """Let the class token of the one and the patches of the other attend to each other.

        Args:
            early: Tokens after block E (B, 1 + N, D), not normalised.
            cls_token: Class token after the last block (B, D), likewise.
            attn_bias: What the backbone adds to its attention logits (H, 1 + N, 1 + N), or None.
            keep: Which tokens of each image come out, (B, T) long in [0, 1 + N); None: all.

        Returns:
            Tokens (B, 1 + N, D), or those to keep (B, T, D), not normalised.
        """
        x = torch.cat([cls_token[:, None], early[:, 1:]], dim=1)
        for i, block in enumerate(self.blocks):
            args = (x, attn_bias, keep) if i == len(self.blocks) - 1 and keep is not None else (x, attn_bias)
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, *args, use_reentrant=False)
            else:
                x = block(*args)
        return x

    def init_weights(self) -> None:
        """Initialise as officially: as PyTorch draws a Linear, bias included, and then rescaled with the depth."""
        if self.is_init:
            return
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.LayerNorm)):
                module.reset_parameters()
        rescale_depth_(self.blocks, first=self.early_layers + 1)
        super().init_weights()
