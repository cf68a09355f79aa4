"""Processes that contenders run in: each project in one of its own.

So that how memory is laid out, and in which order models were built, is nobody's luck, and peers can run as their own
tools have them run.
"""

import gc
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any

import numpy as np
import torch
from measure import COMPILED, Contender, Setting, UnableError, attention_kernels, count_flops, seconds, step_memory
from torch import Tensor

from mmbeit.engine.memory import give_back_freed_memory, keep_freed_memory

OURS = 'mmbeit'
PEERS = ('timm', 'transformers', 'mmpretrain', 'mmseg')


def project(contender: str) -> str:
    """Whose a contender is; sizes, ways and parts of the work are ours."""
    name = contender.removesuffix(COMPILED)
    return name if name in PEERS else OURS


class Workers:
    """A process for each project, which is started when it has something to do.

    Args:
        keep_memory: The projects whose processes keep what they free, in huge pages, as our tools do on CPUs.
    """

    def __init__(self, keep_memory: Iterable[str] = ()):
        self.keep_memory = frozenset(keep_memory)
        self.processes: dict[str, ProcessPoolExecutor] = {}

    def call(self, contender: str, function: Callable, *args: object) -> Any:
        """What a function of this module gives in the process of the contender's project; its errors are raised here.

        Raises:
            UnableError: The process has ended.
        """
        whose = project(contender)
        if whose not in self.processes:
            self.processes[whose] = ProcessPoolExecutor(1, get_context('spawn'), initializer=end_with_parent)
        try:
            return self.processes[whose].submit(function, *args).result()
        except BrokenProcessPool:
            del self.processes[whose]
            raise UnableError('its process ended, such as for want of memory') from None

    def build(self, case: str, contender: str, setting: Setting) -> int:
        """Have a contender of a case built; how many items a step of it has.

        Raises:
            UnableError: It cannot do the work.
        """
        return self.call(contender, build, case, contender, setting, project(contender) in self.keep_memory)

    def output(self, contender: str) -> Tensor | None:
        """What all contenders have to agree on."""
        found = self.call(contender, output, contender)
        return None if found is None else torch.from_numpy(found)

    def step(self, device: str, contender: str) -> Callable[[int], float]:
        """Run a contender so many times: seconds of one of them, without what the message takes."""
        return partial(self.call, contender, run, contender, device)

    def forget(self) -> None:
        """Have everybody let go of the contenders, and of the memory."""
        for whose in list(self.processes):
            with suppress(UnableError):
                self.call(whose, forget)

    def __enter__(self) -> 'Workers':
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.shutdown()


# ---- what runs in a process ----

BUILT: dict[str, Contender] = {}


def end_with_parent() -> None:
    """Else what a benchmark that was killed leaves behind holds its models, and spoils the next one."""

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def build(case: str, contender: str, setting: Setting, keep_memory: bool) -> int:
    from cases import CASES

    if keep_memory:
        keep_freed_memory()
    BUILT[contender] = CASES[case].contenders[contender](setting)
    return BUILT[contender].items


def built(contender: str) -> Contender:
    if contender not in BUILT:
        raise UnableError(f'{contender} is lost: its process ended')
    return BUILT[contender]


def output(contender: str) -> np.ndarray | None:
    of_it = built(contender).output
    return None if of_it is None else of_it().float().cpu().numpy()


def run(contender: str, device: str, count: int) -> float:
    return seconds(built(contender).step, device, count)


def flops(contender: str) -> int:
    return count_flops(built(contender).step)


def attention(contender: str) -> list[str]:
    return attention_kernels(built(contender).step)


def memory(contender: str, device: str) -> int:
    return step_memory(built(contender), device)


def forget() -> None:
    BUILT.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_back_freed_memory()
