"""Hooks for training."""

import math
import random
from operator import attrgetter

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmbeit.registry import HOOKS


def inner_model(runner: Runner) -> nn.Module:
    """The model without its DDP wrapper."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


@HOOKS.register_module()
class StepSeedHook(Hook):
    """Seed the random generators of the training process before each step: drop path, mixup, Gumbel noise.

    The seed follows from the run's seed, the rank and the iteration, so that a resumed run goes on as if it had not
    been interrupted. The data have seeds of their own (:mod:`mmbeit.datasets.samplers`).
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        seed = int(np.random.SeedSequence((runner.seed, runner.rank, runner.iter)).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)


@HOOKS.register_module()
class AnnealHook(Hook):
    """Move a number of the model along half a cosine, once per iteration, and log it.

    Args:
        attr: Name of the attribute, such as 'temperature'.
        start: First value.
        end: Value from iteration `num_iters` on.
        num_iters: Length in iterations; None for the whole training.
    """

    def __init__(self, attr: str, start: float, end: float, num_iters: int | None = None):
        self.attr = attr
        self.start = start
        self.end = end
        self.num_iters = num_iters

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        progress = min(runner.iter / max(self.num_iters or runner.max_iters - 1, 1), 1.0)
        value = self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2
        setattr(inner_model(runner), self.attr, value)
        runner.message_hub.update_scalar(f'train/{self.attr}', value)


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile a part of the model in place before training. mmengine's `compile=True` fails with parameter groups.

    Args:
        attr: Name of the part.
        kwargs: Of :meth:`torch.nn.Module.compile`.
    """

    def __init__(self, attr: str = 'backbone', **kwargs):
        self.attr = attr
        self.kwargs = kwargs

    def before_train(self, runner: Runner) -> None:
        attrgetter(self.attr)(inner_model(runner)).compile(**self.kwargs)


@HOOKS.register_module()
class TrimLogHook(Hook):
    """Keep only the latest `max_length` values of each logged number.

    mmengine copies a number's whole history whenever it grows: 1.5 ms per number and step after 500,000 steps.
    """

    def __init__(self, max_length: int = 10_000):
        self.max_length = max_length

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        if self.every_n_train_iters(runner, 1000) or batch_idx == 0:
            for buffer in runner.message_hub.log_scalars.values():
                buffer.max_length = self.max_length
