"""Mixed precision on any device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

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
