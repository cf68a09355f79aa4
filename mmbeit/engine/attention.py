"""By which kernels attention was computed."""

from collections import Counter
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmbeit.engine.compiling import blocks_of
from mmbeit.engine.hooks import inner_model
from mmbeit.layers.block import Block
from mmbeit.registry import HOOKS


def kernels_that_ran(model: nn.Module) -> dict[str, int]:
    """In how many blocks each of :data:`mmbeit.layers.kernels.KERNELS` computed attention last.

    Blocks of BEiT-3 have no position bias, and PyTorch's attention.
    """
    ran = [block.attn.kernel for block in blocks_of(model) if isinstance(block, Block)]
    return dict(Counter(kernel for kernel in ran if kernel is not None))


@HOOKS.register_module()
class AttentionReportHook(Hook):
    """Log the kernels of attention after the first step of training, of validation and of a test."""

    def __init__(self):
        self.reported = set()

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = 'train'
    ) -> None:
        if mode in self.reported:
            return
        self.reported.add(mode)
        ran = kernels_that_ran(inner_model(runner))
        if ran:
            kernels = ', '.join(f'{kernel} {count}' for kernel, count in ran.items())
            runner.logger.info(f'Attention kernels ({mode}), and in how many blocks: {kernels}')
