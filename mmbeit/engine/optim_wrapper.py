"""Mixed precision on any device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmbeit.engine.late_logging import update_late
from mmbeit.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Forward pass under bfloat16 autocast, which needs no loss scale. mmengine's `AmpOptimWrapper` refuses CPUs.

    Args:
        dtype: 'bfloat16'. For float16 use mmengine's `dict(type='AmpOptimWrapper', dtype='float16')`.
        kwargs: Of :class:`mmengine.optim.OptimWrapper`.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs):
        super().__init__(**kwargs)
        if dtype != 'bfloat16':
            raise ValueError(f"dtype {dtype!r} is not 'bfloat16'; float16 needs a loss scale: use AmpOptimWrapper")
        self.dtype = torch.bfloat16

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=self.dtype):
            yield

    def _clip_grad(self) -> None:
        """As mmengine's, which would wait for the norm."""
        parameters = [p for group in self.optimizer.param_groups for p in group['params'] if p.grad is not None]
        if parameters and (norm := self.clip_func(parameters, **self.clip_grad_kwargs)) is not None:
            update_late(self.message_hub, f'train/{self.grad_name}', norm)
