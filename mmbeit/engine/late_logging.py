"""Logged numbers that are read when somebody looks, so that no training step waits for the GPU.

mmengine reads the loss and the norm of the gradients right after each step, and so begins the next one, with its data
and its launches, only when the GPU is done.
"""

from collections.abc import Callable

import numpy as np
import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import Runner
from torch import Tensor

from mmbeit.registry import HOOKS


class LateBuffer(HistoryBuffer):
    """A history that takes tensors of one number, and reads them, all at once, when it is asked for anything.

    Copied or saved, it is a plain one.

    Args:
        history: What there is already.
    """

    def __init__(self, history: HistoryBuffer):
        self._waiting: list[Tensor] = []
        super().__init__(*history.data, history.max_length)

    def update(self, log_val: float | Tensor, count: int = 1) -> None:
        """Add a number, or a tensor of one, that counts once."""
        if isinstance(log_val, Tensor):
            self._waiting.append(log_val.detach())
        else:
            super().update(log_val, count)

    def _read(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            for value in torch.stack([value.reshape(()) for value in waiting]).tolist():
                super().update(value)

    @property
    def _log_history(self) -> np.ndarray:
        self._read()
        return self._values

    @_log_history.setter
    def _log_history(self, values: np.ndarray) -> None:
        self._values = values

    @property
    def _count_history(self) -> np.ndarray:
        self._read()
        return self._counts

    @_count_history.setter
    def _count_history(self, counts: np.ndarray) -> None:
        self._counts = counts

    def __reduce__(self) -> tuple[Callable, tuple]:
        return HistoryBuffer, (*self.data, self.max_length)


def update_late(hub: MessageHub, key: str, value: float | Tensor) -> None:
    """`hub.update_scalar(key, value)`, which reads a tensor only when the history is asked for."""
    buffer = hub.log_scalars.get(key)
    if isinstance(value, Tensor) and isinstance(buffer, LateBuffer):
        buffer.update(value)
        return
    hub.update_scalar(key, value)
    if isinstance(value, Tensor):  # the first one of a run, or after it was resumed
        hub.log_scalars[key] = LateBuffer(hub.log_scalars[key])


@HOOKS.register_module()
class LateRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's hook, but for losses, which are read when they are logged."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        for key, value in (outputs or {}).items():
            update_late(runner.message_hub, f'train/{key}', value)
