"""Accuracy of a linear probe."""

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from mmbeit.registry import METRICS


@METRICS.register_module()
class LinearProbeAccuracy(BaseMetric):
    """Accuracy of each block of a linear probe, and of the best of them, in percent.

    Takes predictions of :class:`mmbeit.models.heads.linear_probe.LinearProbeHead`. Gives `top1` (for every k of
    `topk`) of the block that is best at the first k, `block` (its number among the probed ones, from 0), and
    `block0_top1`, `block1_top1`, ... of all.

    Args:
        topk: Among how many of the likeliest classes the right one has to be; the head has to keep as many.
        kwargs: Of :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'accuracy'

    def __init__(self, topk: Sequence[int] = (1, 5), **kwargs):
        super().__init__(**kwargs)
        self.topk = tuple(topk)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Note for a batch which blocks were right.

        Raises:
            ValueError: The predictions hold fewer classes than `topk` asks for.
        """
        for sample in data_samples:
            labels, target = sample['pred_block_labels'].cpu().numpy(), sample['gt_label'].cpu().numpy()
            if labels.shape[1] < max(self.topk):
                raise ValueError(f'topk {self.topk} of predictions that hold {labels.shape[1]} classes')
            self.results.append(np.stack([(labels[:, :k] == target).any(axis=1) for k in self.topk], axis=1))

    def compute_metrics(self, results: list[np.ndarray]) -> dict[str, float]:
        accuracy = 100 * np.mean(results, axis=0)  # (L, len(topk))
        best = int(accuracy[:, 0].argmax())
        metrics = {f'top{k}': float(value) for k, value in zip(self.topk, accuracy[best], strict=True)}
        metrics['block'] = best
        for block, values in enumerate(accuracy):
            metrics.update({f'block{block}_top{k}': float(v) for k, v in zip(self.topk, values, strict=True)})
        return metrics
