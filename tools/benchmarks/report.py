"""Tables and records of what was measured."""

import json
import platform
import shlex
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from measure import Case, Measured, Setting
from rich.table import Table

from mmbeit.layers.autocast import bfloat16_instructions

PACKAGES = ('torch', 'timm', 'transformers', 'onedl-mmpretrain', 'onedl-mmsegmentation', 'onedl-mmengine', 'pillow')
MEBI = 1 << 20
EXPLANATION = """Medians over rounds in which all take turns; +- is half of what lies between the quartiles. A factor is
the median over the rounds of the time of the peer over that of mmbeit. Memory is what a step needs at most over what
the model, and in training the optimizer, hold. Time over operations is how much longer one size takes than the first,
over how many more operations it has. Each project runs in a process of its own. On CPUs what they free is kept, in huge
pages, as mmbeit's tools have it: for all, or, where the command says --plain-peers, for mmbeit alone."""


@dataclass(frozen=True)
class Record:
    """What was measured of a case.

    Attributes:
        share: Of the rate of matrix products that the first contender reaches.
    """

    case: Case
    setting: Setting
    measured: dict[str, Measured]
    share: float | None


def title(record: Record) -> str:
    setting = record.setting
    return f'{record.case.title} ({setting.dtype}' + (f', --batch {setting.batch})' if setting.batch else ')')


def header(record: Record) -> list[str]:
    compared = 'time over operations' if record.case.growth else 'mmbeit is faster by'
    return ['', 'ms', '+-', f'{record.case.unit}/s', compared, 'memory (MiB)']


def comparison(record: Record, one: Measured) -> str:
    """One that is not the first, with the first: how much longer it took, and where both are sizes, how much longer
    than its operations are more."""
    first = next(iter(record.measured.values()))
    if one is first or not first.times:
        return ''
    ratio = first.times_faster_than(one)
    return f'{ratio / (one.flops / first.flops):.2f}' if record.case.growth else f'{ratio:.2f}x'


def rows(record: Record) -> list[list[str]]:
    """Cells of every contender."""
    cells = []
    for name, one in record.measured.items():
        if one.unable or not one.times:
            cells.append([name, one.unable or '', '', '', '', ''])
            continue
        memory = '' if one.memory is None else f'{one.memory / MEBI:,.0f}'
        speed = f'{one.items / one.time:,.4g}'
        cells.append([name, f'{1000 * one.time:,.4g}', f'{one.spread:.0%}', speed, comparison(record, one), memory])
    return cells


def notes(record: Record) -> list[str]:
    """What is said below the table."""
    lines = []
    if record.share is not None:
        who = next(iter(record.measured)) if record.case.growth else 'mmbeit'
        lines.append(f'{who} reaches {record.share:.0%} of the rate of matrix products here.')
    kernels = {name: one.attention for name, one in record.measured.items() if one.attention is not None}
    if kernels:
        ran = (f'{name} {" and ".join(of_it)}' for name, of_it in kernels.items())
        lines.append(f'Attention: {"; ".join(ran)}.')
    return lines


def table(record: Record) -> Table:
    drawn = Table(*header(record), title=title(record), caption='\n'.join(notes(record)))
    for cells in rows(record):
        drawn.add_row(*cells)
    return drawn


def machine(device: str) -> dict[str, str]:
    """What it ran on."""
    found = {'date': time.strftime('%Y-%m-%d'), 'python': platform.python_version()}
    if device == 'cuda':
        found['device'] = torch.cuda.get_device_name()
    else:
        names = [line.split(':', 1)[1].strip() for line in _lines('/proc/cpuinfo') if line.startswith('model name')]
        found['device'] = f'{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads'
        found['instructions'] = ' '.join([torch.backends.cpu.get_cpu_capability(), *bfloat16_instructions()])
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def write(folder: Path, stem: str, records: list[Record], on: dict[str, str], arguments: list[str]) -> None:
    """Write `STEM.md` and `.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    command = f'python tools/benchmarks/run.py {shlex.join(arguments)}'.strip()
    lines = ['# mmbeit and its peers', '', f'```bash\n{command}\n```', '']
    lines += [', '.join(f'{name} {value}' for name, value in on.items()) + '.', '']
    lines += [EXPLANATION, '']
    for record in records:
        lines += [f'## {title(record)}', '']
        cells = [header(record), ['---'] * 6, *rows(record)]
        lines += ['| ' + ' | '.join(row) + ' |' for row in cells]
        lines += ['', *notes(record), '']
    (folder / f'{stem}.md').write_text('\n'.join(lines).rstrip() + '\n')
    content = [
        dict(
            case=record.case.name,
            device=record.setting.device,
            dtype=record.setting.dtype,
            batch=record.setting.batch,
            share_of_matmul=record.share,
            measured={name: asdict(one) for name, one in record.measured.items()},
        )
        for record in records
    ]
    (folder / f'{stem}.json').write_text(json.dumps(dict(machine=on, command=command, cases=content), indent=1) + '\n')
