"""Prediction of visual tokens at masked patches."""

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmbeit.layers.init import init_transformer_
from mmbeit.registry import MODELS


@MODELS.register_module()
class MIMHead(BaseModule):
    """Final norm and linear classifier over the codebook, run on masked patches only (BEiT, section 2.3).

    Args:
        embed_dims: Width D of the tokens.
        num_codes: Size of the codebook.
        init_cfg: mmengine's initialisation config, applied after the official one.
    """

    def __init__(self, embed_dims: int, num_codes: int = 8192, init_cfg: dict | list[dict] | None = None):
        super().__init__(init_cfg)
        self.norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.fc = nn.Linear(embed_dims, num_codes)

    def init_weights(self) -> None:
        if not self.is_init:
            init_transformer_(self, bound=0.02)
            super().init_weights()

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Logits of the masked patches.

        Args:
            tokens: Un-normalised output of the last block (B, 1 + N, D).
            mask: (B, N) bool, True = masked.

        Returns:
            (M, num_codes) for the M masked patches of the batch, image by image and row by row.
        """
        return self.fc(self.norm(tokens[:, 1:][mask]))

    def loss(self, tokens: Tensor, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Mean cross entropy and accuracy over the masked patches of the batch.

        Args:
            tokens: As for :meth:`forward`.
            ids: Visual tokens (B, N) long.
            mask: As for :meth:`forward`.

        Returns:
            `loss`, and `accuracy` in percent. Both are 0 where no patch of the batch is masked.
        """
        logits, targets = self(tokens, mask), ids[mask]
        num_masked = max(len(targets), 1)  # blockwise masking may give up on an image: the mean of nothing is NaN
        correct = (logits.detach().argmax(dim=1) == targets).sum()
        return {
            'loss': F.cross_entropy(logits.float(), targets, reduction='sum') / num_masked,
            'accuracy': 100 * correct / num_masked,
        }
