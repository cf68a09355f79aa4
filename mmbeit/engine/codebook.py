"""The health of a codebook while it is trained."""

from operator import attrgetter

import matplotlib.figure
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmbeit.engine.errors import StoppedRunError
from mmbeit.engine.hooks import inner_model
from mmbeit.layers.quantizer import Quantized, code_usage, perplexity
from mmbeit.registry import HOOKS


@HOOKS.register_module()
class CodebookHook(Hook):
    """Count which codes a quantizer gives, log it, draw it, and stop a run whose codebook collapses.

    In training `codebook_usage` (percent of the codes that occurred since they were logged last), `dead_codes` (the
    others) and `codebook_perplexity` go to the log. Each validation gives the visualizer a picture of how often each
    code occurred; mmengine's local one keeps it as a PNG in the work folder. For numbers of a validation, give the
    evaluator :class:`mmbeit.evaluation.codebook.CodebookUsage`. The numbers are of all processes.

    Args:
        interval: Log after so many iterations of an epoch, or at its end if it is shorter; give the logger the same.
        min_usage: Stop the run where `codebook_usage` is lower, in percent. 0: never.
        patience: But not before it was lower so many times in a row.
        attr: Name of the quantizer in the model.
    """

    def __init__(
        self, interval: int = 100, min_usage: float = 0.0, patience: int = 3, attr: str = 'tokenizer.quantizer'
    ):
        if not 0 <= min_usage < 100:
            raise ValueError(f'min_usage ({min_usage}) is in percent of the codes: expected 0 <= min_usage < 100')
        self.interval = interval
        self.min_usage = min_usage
        self.patience = patience
        self.attr = attr
        self.num_low = 0

    def before_train(self, runner: Runner) -> None:
        quantizer = attrgetter(self.attr)(inner_model(runner))
        self.counts = {mode: quantizer.codebook.new_zeros(quantizer.num_codes) for mode in ('train', 'val')}
        self.handle = quantizer.register_forward_hook(self._count)

    def _count(self, quantizer: nn.Module, args: tuple, out: Quantized) -> None:
        ids = out.ids.flatten()
        counts = self.counts['train' if quantizer.training else 'val']
        counts.index_add_(0, ids, torch.ones_like(ids, dtype=counts.dtype))

    def _take(self, mode: str) -> Tensor:
        """What has been counted in all processes; counting starts again."""
        counts = self.counts[mode].clone()
        self.counts[mode].zero_()
        all_reduce(counts)
        return counts

    def before_train_epoch(self, runner: Runner) -> None:
        self.counts['train'].zero_()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        length = len(runner.train_dataloader)
        if (batch_idx + 1) % min(self.interval, length):  # as the logger, which does not log a rest
            return
        counts = self._take('train')
        usage = code_usage(counts).item()
        runner.message_hub.update_scalars(
            {
                'train/codebook_usage': usage,
                'train/dead_codes': int((counts == 0).sum()),
                'train/codebook_perplexity': perplexity(counts).item(),
            }
        )
        self.num_low = self.num_low + 1 if usage < self.min_usage else 0
        if self.min_usage and self.num_low >= self.patience:
            raise StoppedRunError(
                f'the codebook is collapsing: in iteration {runner.iter + 1} {usage:.1f} % of its {len(counts)} codes '
                f'are in use, less than min_usage={self.min_usage}, {self.num_low} times in a row. Let dead codes be '
                'replaced (model.tokenizer.revive_below=0.1), start from k-means (model.tokenizer.kmeans_init=True), '
                'train with a lower learning rate, or take fewer codes'
            )

    def before_val_epoch(self, runner: Runner) -> None:
        if hasattr(self, 'counts'):
            self.counts['val'].zero_()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if hasattr(self, 'counts'):
            counts = self._take('val').cpu().numpy()
            runner.visualizer.add_image('codebook', picture(draw_usage(counts)), step=runner.epoch)

    def after_train(self, runner: Runner) -> None:
        self.handle.remove()


def draw_usage(counts: np.ndarray) -> matplotlib.figure.Figure:
    """How often each code (num_codes,) occurred, the most frequent one first, against all codes alike."""
    counts = torch.from_numpy(np.asarray(counts, dtype=np.float64))
    shares = 100 * counts.sort(descending=True).values.numpy() / max(counts.sum().item(), 1)
    used = int((counts > 0).sum())
    figure = matplotlib.figure.Figure(figsize=(6, 3.6), layout='constrained')
    axes = figure.subplots()
    axes.fill_between(np.arange(1, used + 1), shares[:used], step='mid', alpha=0.6, label='codes by frequency')
    axes.axhline(100 / len(counts), color='black', linestyle=':', label='all codes alike')
    axes.axvspan(used + 0.5, len(counts) + 0.5, color='red', alpha=0.15, label=f'{len(counts) - used} codes never')
    axes.set(xlim=(0.5, len(counts) + 0.5), yscale='log', xlabel='rank of the code', ylabel='share of all tokens (%)')
    axes.set_title(f'{code_usage(counts):.1f} % of {len(counts)} codes, perplexity {perplexity(counts):.0f}')
    axes.legend(loc='upper right')
    return figure


def picture(figure: matplotlib.figure.Figure) -> np.ndarray:
    """A figure as RGB pixels (height, width, 3), uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
