"""How fast mmbeit is, next to its peers: `python tools/benchmarks/run.py`.

Everybody has the same weights, inputs and precision, what they compute is compared before it is timed, and they take
turns. It prints a table and writes a record, Markdown and JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from inference import CASES as INFERENCE
from measure import (
    COMPILED,
    DTYPES,
    Case,
    Measured,
    Setting,
    UnableError,
    attention_kernels,
    count_flops,
    distance,
    matmul_rate,
    memory_of_process,
    step_memory,
    synchronize,
    time_in_turn,
)
from pipeline import CASES as PIPELINE
from report import Record, machine, table, write
from rich.console import Console
from scaling import CASES as SCALING
from startup import CASES as STARTUP
from training import CASES as TRAINING

from mmbeit.engine.memory import give_back_freed_memory, keep_freed_memory
from mmbeit.layers.autocast import multiplies_bfloat16

CASES = {case.name: case for case in (*TRAINING, *INFERENCE, *PIPELINE, *SCALING, *STARTUP)}
TOLERANCE = {'float32': 1e-4, 'bfloat16': 3e-2}  # relative distance of outputs
BUDGET = 600  # seconds in all
PEERS = ('timm', 'transformers', 'mmpretrain', 'mmseg')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--dtype',
        choices=list(DTYPES),
        nargs='*',
        help='bfloat16 on GPUs, float32 on CPUs, on those that have bfloat16 both',
    )
    parser.add_argument('--only', nargs='*', metavar='NAME', help='cases, or what the names of some start with')
    parser.add_argument(
        '--peers', nargs='*', choices=PEERS, default=PEERS, help='these only, where memory is short of all'
    )
    parser.add_argument('--quick', action='store_true', help='few and small cases, to see that it works')
    parser.add_argument('--budget', type=float, default=BUDGET, help='seconds in all, roughly (%(default)s)')
    parser.add_argument('--out-dir', type=Path, help='where the record goes; by default none is written')
    parser.add_argument('--name', help='of the record; by default the device and the month')
    parser.add_argument('--list', action='store_true', help='print the names of the cases')
    parser.add_argument('--memory-of', metavar='CONTENDER', help=argparse.SUPPRESS)  # of one step, in bytes
    return parser.parse_args(argv)


def chosen(args: argparse.Namespace) -> list[tuple[Case, Setting]]:
    """What is to be run.

    Raises:
        SystemExit: No case has such a name.
    """
    names = named(args.only or [''])
    dtypes = args.dtype or dtypes_of(args.device)
    cases = [
        case
        for case in CASES.values()
        if args.device in case.devices and (case.quick or not args.quick) and case.name in names
    ]
    cases = [against(case, args.peers) for case in cases]
    return [
        (case, Setting(args.device, dtype, args.quick)) for case in cases for dtype in dtypes if dtype in case.dtypes
    ]


def against(case: Case, peers: Collection[str]) -> Case:
    """A case without the peers that are not among these."""
    left_out = set(PEERS).difference(peers)
    kept = {name: one for name, one in case.contenders.items() if name.removesuffix(COMPILED) not in left_out}
    return replace(case, contenders=kept)


def named(words: list[str]) -> set[str]:
    """The cases of these names; a word that is none stands for all that start with it.

    Raises:
        SystemExit: No case has such a name.
    """
    names = set()
    for word in words:
        found = {word} if word in CASES else {name for name in CASES if name.startswith(word)}
        if not found:
            sys.exit(f'no case {word!r}: expected some of {", ".join(CASES)}')
        names |= found
    return names


def dtypes_of(device: str) -> list[str]:
    """What people train and run models in there."""
    if device == 'cuda':
        return ['bfloat16']
    return ['float32', 'bfloat16'] if multiplies_bfloat16() else ['float32']


def measure(case: Case, setting: Setting, budget: float) -> Iterator[Record]:
    """What is known of all contenders of a case: once they are timed, and again with the memory of each."""
    measured = {name: Measured() for name in case.contenders}
    ready = {}
    for name, build in case.contenders.items():
        try:
            ready[name] = build(setting)
            measured[name].items = ready[name].items
        except UnableError as error:
            measured[name].unable = str(error)
    expected = None
    for name, contender in ready.items():
        if contender.output is not None:
            output = contender.output()
            expected = output if expected is None else expected
            measured[name].difference = difference = distance(output, expected)
            if not difference <= TOLERANCE[setting.dtype]:
                measured[name].unable = f'its output differs by {difference:.1e}'
    ready = {name: contender for name, contender in ready.items() if not measured[name].unable}
    counted = ready if case.growth else dict(islice(ready.items(), 1))
    if case.flops:
        for name, contender in counted.items():
            measured[name].flops = count_flops(contender.step)
        for name, contender in ready.items():
            measured[name].attention = attention_kernels(contender.step)
    rate = matmul_rate(setting) if case.flops else None
    for name, times in time_in_turn(ready, setting.device, budget).items():
        measured[name].times = times
    share = None
    if rate is not None:
        first = next(iter(measured.values()))
        share = first.flops / first.time / max(rate, matmul_rate(setting))
    yield Record(case, setting, measured, share)
    if not case.memory:
        return
    if setting.device == 'cuda':
        for name, contender in ready.items():
            measured[name].memory = step_memory(contender, setting.device)
    ready.clear()
    counted.clear()
    contender = None  # the last one, too
    synchronize(setting.device)
    if setting.device == 'cpu':
        give_back_freed_memory()  # of all contenders, before one is built anew in another process
        for name, one in measured.items():
            if not one.unable:
                one.memory = memory_of_process(case.name, name, setting)
    yield Record(case, setting, measured, share)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.list:
        for case in CASES.values():
            print(f'{case.name:32}{case.title}')
        return
    work = chosen(args)
    if args.memory_of:
        case, setting = work[0]
        print(json.dumps(step_memory(case.contenders[args.memory_of](setting), setting.device)))
        return
    console = Console()
    records, start, on = [], time.monotonic(), machine(args.device)
    arguments = argv if argv is not None else sys.argv[1:]
    stem = args.name or f'{args.device}_{on["date"][:7].replace("-", "")}'
    for i, (case, setting) in enumerate(work):
        left = args.budget - (time.monotonic() - start)
        console.print(f'{case.name}, {setting.dtype} ({i + 1} of {len(work)}, {max(left, 0):.0f} s left)', style='dim')
        if args.device == 'cpu':
            keep_freed_memory()  # as our tools do; else who finds pages mapped, and who not, is chance
        # What is not timing (building, compiling, memory) takes about as long again.
        for record in measure(case, setting, max(left, 0) / (len(work) - i) / 2):
            records[i:] = [record]
            if args.out_dir is not None:  # what was measured is not lost if the rest is broken off
                write(args.out_dir, stem, records, on, arguments)
        console.print(table(records[-1]))


if __name__ == '__main__':
    main()
