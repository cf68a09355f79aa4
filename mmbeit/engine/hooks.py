"""Hooks for training."""

import math
import os
import random
from collections import deque
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
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
class SwitchHook(Hook):
    """Give a number of the model another value from some iteration on, also in a run that is resumed after it.

    Args:
        attr: Name of the attribute, such as 'mlm_head.drop_worst_ratio'.
        value: Its new value.
        begin: First iteration, 0-based, that has it.
    """

    def __init__(self, attr: str, value: float, begin: int):
        self.owner, _, self.name = attr.rpartition('.')
        self.value = value
        self.begin = begin

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        if runner.iter >= self.begin:
            model = inner_model(runner)
            setattr(attrgetter(self.owner)(model) if self.owner else model, self.name, self.value)


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


@register_backend('atomic')
class AtomicLocalBackend(LocalBackend):
    """Local files that are whole or not there: they are written under another name and renamed."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        partial = Path(f'{filepath}.partial')
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open('wb') as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(filepath)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's hook, for runs that may be killed while they save.

    mmengine writes under the final name, and deletes the oldest checkpoint before it writes the next one, be it the
    only one. Here a local checkpoint is whole or not there, and the oldest one goes last. Arguments are the same.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.backend_args is None and '://' not in str(self.out_dir or ''):
            self.backend_args = dict(backend='atomic')

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        runner.call_hook('before_checkpoint')  # the first process saves; here hooks may ask the others
        keep = self.max_keep_ckpts
        saved = [] if keep <= 0 else [kept for kept in self.keep_ckpt_ids if kept != step] + [step]
        if keep > 0:  # one more than there will be, so that a run resumed from this checkpoint deletes the oldest
            runner.message_hub.update_info('keep_ckpt_ids', saved)
        self.max_keep_ckpts = -1
        super()._save_checkpoint_with_step(runner, step, meta)
        self.max_keep_ckpts = keep
        if keep <= 0:
            return
        for outdated in saved[:-keep]:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(outdated))
            if is_main_process() and self.file_backend.exists(path):  # DeepSpeed's checkpoints are folders
                (self.file_backend.rmtree if self.file_backend.isdir(path) else self.file_backend.remove)(path)
        self.keep_ckpt_ids = deque(saved[-keep:], keep)
        runner.message_hub.update_info('keep_ckpt_ids', saved[-keep:])
