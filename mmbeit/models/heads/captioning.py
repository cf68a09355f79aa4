"""Prediction of hidden tokens: words of captions and texts, visual tokens (unilm:beit3/utils.py)."""

import math

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmbeit.layers.init import init_transformer_
from mmbeit.registry import MODELS


@MODELS.register_module()
class MaskedTokenHead(BaseModule):
    """Linear classifier over a vocabulary, run on hidden tokens only. Its inputs are normalised by the encoder.

    Args:
        embed_dims: Width D of the tokens.
        num_tokens: Size V of the vocabulary: 64010 words, or the codes of a visual tokenizer.
        label_smoothing: Share of the target that the V - 1 wrong tokens have together; 0.1 for captions.
        drop_worst_ratio: Share of the tokens of a batch, those with the largest losses, that do not count; for
            captions 0.2 after a while (:class:`mmbeit.engine.hooks.SwitchHook`).
        init_cfg: mmengine's initialisation config, applied after the official one.
    """

    def __init__(
        self,
        embed_dims: int,
        num_tokens: int,
        label_smoothing: float = 0.0,
        drop_worst_ratio: float = 0.0,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        self.label_smoothing = label_smoothing
        self.drop_worst_ratio = drop_worst_ratio
        self.fc = nn.Linear(embed_dims, num_tokens)

    def init_weights(self) -> None:
        if not self.is_init:
            init_transformer_(self, bound=0.02)
            super().init_weights()

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (..., V) of tokens (..., D)."""
        return self.fc(tokens)

    def loss(self, tokens: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Mean divergence of the prediction from the smoothed target: without smoothing, the cross entropy.

        Args:
            tokens: Hidden tokens (M, D).
            targets: What they are, (M,) long.

        Returns:
            `loss`, and `accuracy` in percent. Both are 0 where nothing is hidden.
        """
        logits, eps, V = self(tokens).float(), self.label_smoothing, self.fc.out_features
        # torch spreads its share over all tokens, the right one included.
        losses = F.cross_entropy(logits, targets, label_smoothing=eps * V / (V - 1), reduction='none')
        if eps:
            losses = losses + (1 - eps) * math.log(1 - eps) + eps * math.log(eps / (V - 1))
        if self.drop_worst_ratio and len(losses):
            kept = max(int(len(losses) * (1 - self.drop_worst_ratio)), 1)
            losses = losses.topk(kept, largest=False).values
        correct = (logits.detach().argmax(dim=1) == targets).sum()
        return {'loss': losses.sum() / max(len(losses), 1), 'accuracy': 100 * correct / max(len(targets), 1)}
