"""Timing in turn, peak memory, and what the machine could do at most."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

TURN = 0.2  # seconds that one turn of a contender takes at least
MIN_ROUNDS, MAX_ROUNDS = 3, 40
TINY = dict(embed_dims=64, num_layers=4, num_heads=2, feedforward_channels=256)
COMPILED = ' compiled'  # ends the name of a contender that is
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}


@dataclass(frozen=True)
class Setting:
    """Where and how all contenders of a case run.

    Attributes:
        device: 'cpu' or 'cuda'.
        dtype: Of the arithmetic; parameters stay in float32 in training.
        quick: Whether tiny models and small batches will do, to see that everything works.
        batch: Images of a batch, where a case has one; None: so many as the case has by itself.
    """

    device: str
    dtype: str
    quick: bool = False
    batch: int | None = None

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    def arch(self, name: str) -> str | dict:
        """The size of a model: that of this name, or a tiny one."""
        return dict(TINY) if self.quick else name

    def batch_of(self, default: int) -> int:
        """Images of a batch, in a case that has so many by itself."""
        return self.batch or (2 if self.quick else default)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, self.torch_dtype, enabled=self.dtype != 'float32')


@dataclass(frozen=True)
class Contender:
    """One that does the work of a case.

    Attributes:
        step: Does it once.
        items: Images, or whatever is counted, of one step.
        output: What all contenders have to agree on, computed before anything is timed.
    """

    step: Callable[[], object]
    items: int
    output: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class Case:
    """Work that several contenders do.

    Attributes:
        name: As in `--only`.
        title: What is done, in a line.
        contenders: By name, what makes each of them; 'mmbeit' is the first. `UnableError` is reported.
        unit: Of what is counted.
        flops: Whether operations are counted, and compared with what matrix products reach.
        growth: Whether the contenders are sizes of one thing, all mmbeit's: then time is compared with operations.
        memory: Whether it is measured.
        dtypes: In which it is run.
        quick: Whether `--quick` has it.
    """

    name: str
    title: str
    contenders: dict[str, Callable[[Setting], Contender]]
    unit: str = 'images'
    flops: bool = True
    growth: bool = False
    memory: bool = True
    dtypes: tuple[str, ...] = ('float32', 'bfloat16')
    devices: tuple[str, ...] = ('cpu', 'cuda')
    quick: bool = True


class UnableError(Exception):
    """A peer cannot do the work; the message says why."""


@dataclass
class Measured:
    """What was measured of one contender.

    Attributes:
        times: Seconds of a step, in the rounds in which everybody had a turn.
        memory: Bytes that a step needs at most, over what the model and the optimizer hold.
        flops: Operations of a step.
        difference: Relative distance of its output from the first contender's.
        attention: What computed it.
        unable: Why nothing was measured.
    """

    items: int = 0
    times: list[float] = field(default_factory=list)
    memory: int | None = None
    flops: int | None = None
    difference: float | None = None
    attention: list[str] | None = None
    unable: str | None = None

    @property
    def time(self) -> float:
        return median(self.times)

    @property
    def spread(self) -> float:
        """Half of what lies between the quartiles, over the median."""
        if len(self.times) < 2:
            return math.nan
        low, _, high = quantiles(self.times, n=4, method='inclusive')
        return (high - low) / 2 / self.time

    def times_faster_than(self, other: 'Measured') -> float:
        """Median over the rounds of how much longer the other one took: what a noisy machine changes least."""
        return median(b / a for a, b in zip(self.times, other.times, strict=True))


def synchronize(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()


def seconds(step: Callable[[], object], device: str, count: int = 1) -> float:
    """Of one of `count` steps, after another."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(count):
        step()
    synchronize(device)
    return (time.perf_counter() - start) / count


def time_in_turn(contenders: dict[str, Callable[[int], float]], budget: float) -> dict[str, list[float]]:
    """Seconds of a step of everybody, who take turns: A B C A B C ...

    Args:
        contenders: By name, what runs so many steps and says how long one took.
        budget: Seconds in all, roughly; there are a few rounds in any case.
    """
    counts = {}
    for name, run in contenders.items():
        run(1)  # kernels are chosen, memory is got
        counts[name] = max(1, math.ceil(TURN / run(1)))
    start, times = time.monotonic(), {name: [] for name in contenders}
    for round_ in range(MAX_ROUNDS):
        if round_ >= MIN_ROUNDS and time.monotonic() - start > budget:
            break
        for name, run in contenders.items():
            times[name].append(run(counts[name]))
    return times


def distance(output: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    output, expected = output.double().flatten(), expected.double().flatten()
    if output.shape != expected.shape:
        return math.inf
    return float((output - expected).norm() / expected.norm().clamp_min(1e-12))


def count_flops(step: Callable[[], object]) -> int:
    """Operations of one step: two for a multiplication with its addition, of products and convolutions only."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def attention_kernels(step: Callable[[], object]) -> list[str]:
    """What computes attention in a step, as the profiler calls it."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    events = {event.key.removeprefix('aten::') for event in profiled.key_averages()}
    names = {name for name in events if 'attention' in name.lower() and 'ackward' not in name}
    names = {name.removeprefix('_scaled_dot_product_') for name in names - {'scaled_dot_product_attention'}}
    if names:
        return sorted(names)
    return ['products and softmax'] if '_softmax' in events else ['compiled code']


def matmul_rate(setting: Setting, side: int | None = None) -> float:
    """Operations per second of a product of two large matrices, the best of some."""
    side = side or (8192 if setting.device == 'cuda' else 2048)
    a, b = (torch.randn(side, side, device=setting.device, dtype=setting.torch_dtype) for _ in range(2))
    best = min(seconds(lambda: a @ b, setting.device) for _ in range(8))
    return 2 * side**3 / best


# ---- memory ----


def step_memory(contender: Contender, device: str) -> int:
    """Bytes that a step needs at most, over what was there before. On CPUs only for :func:`memory_of_process`."""
    contender.step()
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        contender.step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    contender.step()
    Path('/proc/self/clear_refs').write_text('5')  # the peak is the present again
    before = resident('VmRSS')
    contender.step()
    return resident('VmHWM') - before


def resident(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    status = Path('/proc/self/status').read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name + ':'))


def memory_of_process(case: str, contender: str, setting: Setting) -> int | None:
    """Likewise on a CPU, in a process of its own, whose allocator gives back at once what it does not need."""
    if not Path('/proc/self/clear_refs').exists():
        return None
    script = Path(__file__).with_name('run.py')
    command = [sys.executable, str(script), '--only', case, '--memory-of', contender, '--dtype', setting.dtype]
    command += ['--quick'] * setting.quick + ([] if setting.batch is None else ['--batch', str(setting.batch)])
    environment = {**os.environ, 'MALLOC_MMAP_THRESHOLD_': '65536', 'MALLOC_TRIM_THRESHOLD_': '0'}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    return json.loads(run.stdout.splitlines()[-1]) if run.returncode == 0 else None
