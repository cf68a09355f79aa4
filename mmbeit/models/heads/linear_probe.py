"""Linear probe: how well each block of a frozen backbone separates classes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmbeit.registry import MODELS


@MODELS.register_module()
class LinearProbeHead(BaseModule):
    """One linear classifier on the tokens of each block, all trained at once (unilm:beit/run_linear_eval.py).

    A block's feature is its class token next to the mean of its patches, not normalised, in float32 whatever autocast
    says. No gradient passes on to the backbone; with all of its blocks in `frozen_stages` nothing of it is kept for a
    backward pass either. :class:`mmbeit.evaluation.linear_probe.LinearProbeAccuracy` finds the best block.

    Args:
        num_classes: Number of classes K.
        in_channels: Width D of the tokens.
        num_blocks: Number of blocks L that are probed: of the backbone's `out_indices`, with `out_type='raw'`.
        block: Which of them gives `pred_score` and `pred_label` of a prediction.
        topk: How many classes a prediction keeps of every block, in `pred_block_labels`.
        init_cfg: mmengine's initialisation config; by default the official one.

    Raises:
        ValueError: `block` is none of the blocks.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        num_blocks: int,
        block: int = -1,
        topk: int = 5,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg or dict(type='Normal', layer='Linear', std=0.01))
        if not -num_blocks <= block < num_blocks:
            raise ValueError(f'block {block} is not one of the {num_blocks} blocks')
        self.block = block
        self.topk = min(topk, num_classes)
        self.classifiers = nn.ModuleList(nn.Linear(2 * in_channels, num_classes) for _ in range(num_blocks))

    def pre_logits(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Features of every block, (B, 2D) float32, of its tokens (B, 1 + N, D).

        Raises:
            ValueError: There are more or fewer of them than classifiers; the message gives both numbers.
        """
        if len(feats) != len(self.classifiers):
            raise ValueError(f'{len(feats)} feature maps for num_blocks {len(self.classifiers)}')
        return [torch.cat([x[:, 0], x[:, 1:].mean(dim=1)], dim=1).detach().float() for x in feats]

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Logits (L, B, K) of every block, of its tokens (B, 1 + N, D)."""
        feats = self.pre_logits(feats)
        with torch.autocast(feats[0].device.type, enabled=False):
            return torch.stack([classify(x) for classify, x in zip(self.classifiers, feats, strict=True)])

    def loss(self, feats: Sequence[Tensor], data_samples: list) -> dict[str, Tensor]:
        """Sum of the blocks' mean cross entropies.

        Args:
            feats: As for :meth:`forward`.
            data_samples: One per image, each with a `gt_label` (1,) long.

        Returns:
            `loss`.
        """
        targets = torch.cat([sample.gt_label for sample in data_samples])
        return {'loss': sum(F.cross_entropy(logits, targets) for logits in self(feats))}

    def predict(self, feats: Sequence[Tensor], data_samples: list | None = None) -> list:
        """Classify.

        Args:
            feats: As for :meth:`forward`.
            data_samples: mmpretrain's `DataSample`, one per image, or None to make them.

        Returns:
            The samples, each with `pred_score` (K,) and `pred_label` (1,) of `block`, and `pred_block_labels`
            (L, topk) long, the classes of every block, the likeliest first.
        """
        if data_samples is None:
            from mmpretrain.structures import DataSample

            data_samples = [DataSample() for _ in range(len(feats[0]))]
        logits = self(feats)
        scores = logits[self.block].softmax(dim=1)
        block_labels = logits.topk(self.topk, dim=2).indices.transpose(0, 1)
        for sample, score, labels in zip(data_samples, scores, block_labels, strict=True):
            sample.set_pred_score(score).set_pred_label(score.argmax().view(1))
            sample.set_field(labels, 'pred_block_labels')
        return data_samples
