"""Prediction of visual tokens at masked patches."""

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmbeit.layers.init import init_transformer_
from mmbeit.registry import MODELS


@MODELS.register_module()
class MIMHead(BaseModule):
    """Final norm and linear classifier over the codebook, run on masked patches only (BEiT, section 2.3).

    It predicts from every stream of tokens that it is given: 'mim', the output of the last block, and in BEiT v2 'cls',
    the early patches after their aggregation with the class token.

    Args:
        embed_dims: Width D of the tokens.
        num_codes: Size of the codebook.
        shared: Whether all streams share one norm and one classifier, as officially; else 'cls' has its own.
        init_cfg: mmengine's initialisation config, applied after the official one.
    """

    def __init__(
        self,
        embed_dims: int,
        num_codes: int = 8192,
        shared: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        self.norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.fc = nn.Linear(embed_dims, num_codes)
        if not shared:
            self.cls_norm = nn.LayerNorm(embed_dims, eps=1e-6)
            self.cls_fc = nn.Linear(embed_dims, num_codes)
        self.shared = shared

    def init_weights(self) -> None:
        if not self.is_init:
            init_transformer_(self, bound=0.02)
            super().init_weights()

    def forward(self, streams: dict[str, Tensor]) -> dict[str, Tensor]:
        """Logits of the masked patches, from every stream.

        Args:
            streams: Un-normalised tokens of the M masked patches of a batch, (M, D) by name.

        Returns:
            (M, num_codes) by the same names.
        """
        logits = {}
        for name, tokens in streams.items():
            own = name == 'cls' and not self.shared
            norm, fc = (self.cls_norm, self.cls_fc) if own else (self.norm, self.fc)
            logits[name] = fc(norm(tokens))
        return logits

    def loss(self, streams: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Mean cross entropy and accuracy over the masked patches of the batch, for every stream.

        Args:
            streams: As for :meth:`forward`.
            targets: Visual tokens of these patches, (M,) long.

        Returns:
            `loss`, and `accuracy` in percent; of several streams `loss_mim`, `accuracy_mim`, and so on by their names.
            All are 0 where no patch of the batch is masked.
        """
        num_masked = max(len(targets), 1)  # blockwise masking may give up on an image: the mean of nothing is NaN
        losses = {}
        for name, logits in self(streams).items():
            suffix = f'_{name}' if len(streams) > 1 else ''
            logits = logits.float()  # first, for on CPUs the largest of bfloat16 takes six times as long to find
            correct = (logits.detach().argmax(dim=1) == targets).sum()
            losses[f'loss{suffix}'] = F.cross_entropy(logits, targets, reduction='sum') / num_masked
            losses[f'accuracy{suffix}'] = 100 * correct / num_masked
        return losses
