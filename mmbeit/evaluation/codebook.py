"""Health of a codebook over a data set."""

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from mmbeit.layers.quantizer import code_usage, perplexity
from mmbeit.registry import METRICS


def codebook_health(counts: np.ndarray) -> dict[str, float]:
    """`usage`, `dead_codes` and `perplexity` of how often each code occurs (num_codes,), see :class:`CodebookUsage`."""
    counts = torch.from_numpy(counts).double()
    return {
        'usage': float(code_usage(counts)),
        'dead_codes': int((counts == 0).sum()),
        'perplexity': float(perplexity(counts)),
    }


@METRICS.register_module()
class CodebookUsage(BaseMetric):
    """How much of its codebook a tokenizer uses on a data set.

    Takes a dict for each image, with `ids` (integers of any shape) and `num_codes`, and `error`, that of the
    reconstruction, where there is one: mean absolute in [0, 1] of pixels, 1 - cosine of a teacher's features. Gives
    `usage` (percent of the codes that occur), `dead_codes` (those that do not), `perplexity` (number of equally used
    codes with the same entropy), and `error`.
    """

    default_prefix = 'codebook'

    def process(self, data_batch: dict, data_samples: list[dict]) -> None:
        for sample in data_samples:
            ids = sample['ids'].flatten().to('cpu', torch.int32).numpy()
            self.results.append((ids, sample['num_codes'], float(sample.get('error', np.nan))))

    def compute_metrics(self, results: list) -> dict[str, float]:
        ids, num_codes, errors = zip(*results, strict=True)
        metrics = codebook_health(np.bincount(np.concatenate(ids), minlength=num_codes[0]))
        errors = [error for error in errors if not np.isnan(error)]
        return {**metrics, 'error': float(np.mean(errors))} if errors else metrics
