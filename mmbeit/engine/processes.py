"""Runs of `tools/train.py` in processes of their own, followed on one bar."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmbeit.layers.autocast import multiplies_bfloat16
from mmbeit.resources import resource_root

TOOLS = resource_root() / 'tools'
STEP = re.compile(r'(?:Epoch\(train\)\s+\[(?P<epoch>\d+)\]|Iter\(train\)\s+\[\s*(?P<iter>\d+)/).* eta: ')
LENGTH = re.compile(r'max_(?:epochs|iters) ?= ?(\d+)')


class Run(NamedTuple):
    """One call of `tools/train.py`."""

    name: str
    config: Path
    work_dir: Path
    options: tuple[str, ...]
    seconds: int  # a rough share of the whole, for the progress bar


class RunError(Exception):
    """A run ended with an error; the message shows the end of its log."""


def command(tool: str, *args: object) -> list[str]:
    """A call of a tool, of `tools/`, by this interpreter."""
    return [sys.executable, str(TOOLS / f'{tool}.py'), *map(str, args)]


def train(run: Run, progress: Progress, task: TaskID) -> None:
    """Start a run and move the progress bar with the steps that its log reports.

    Raises:
        RunError: It failed.
    """
    options = ['--cfg-options', *run.options] if run.options else []
    run.work_dir.mkdir(parents=True, exist_ok=True)
    progress.update(task, description=run.name)
    done, length = 0.0, 1
    lines: list[str] = []
    # One thread: the models are so small that a second one costs more than it gives.
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    with (
        (run.work_dir / 'output.log').open('w') as log,
        subprocess.Popen(
            command('train', run.config, '--work-dir', run.work_dir, *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        ) as process,
    ):
        for line in process.stdout:
            log.write(line)
            lines = [*lines[-14:], line]
            if found := STEP.search(line):
                share = int(found['epoch'] or found['iter']) / length
                progress.update(task, advance=(share - done) * run.seconds)
                done = share
            elif found := LENGTH.search(line):  # of the config, which comes first
                length = int(found[1])
    if process.returncode:
        raise RunError(f'{run.name} failed, see {run.work_dir / "output.log"}:\n{"".join(lines)}')
    progress.update(task, advance=(1 - done) * run.seconds)


def train_stages(stages: Iterable[list[Run]], seconds: int, console: Console) -> None:
    """Train stage by stage; two runs of one stage happen side by side, the stages need what came before.

    Args:
        stages: The next one is asked for when one is over.
        seconds: Of all runs together, roughly.
        console: For the bar; it also says what failed.

    Raises:
        SystemExit: A run failed.
    """
    columns = (TextColumn('{task.description:<36}'), BarColumn(), TimeElapsedColumn(), TextColumn('left'))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task('', total=seconds)
        try:
            for stage in stages:
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(lambda run: train(run, progress, task), stage))
        except RunError as error:
            console.print(str(error), markup=False)
            raise SystemExit(1) from None


def last_metrics(work_dir: Path) -> dict[str, float]:
    """The last validation that a run logged."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in logs[-1].read_text().splitlines()]
    return [record for record in records if not record.keys() & {'loss', 'lr'}][-1]


def last_checkpoint(work_dir: Path) -> Path:
    """What a run wrote last."""
    return Path((work_dir / 'last_checkpoint').read_text())


def precision_options() -> tuple[str, ...]:
    """Float32, unless the processor has bfloat16."""
    return () if multiplies_bfloat16() else ('optim_wrapper.type=OptimWrapper',)
