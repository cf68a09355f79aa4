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
from pathlib import Path

import torch
import workers as work
from cases import CASES
from measure import (
    COMPILED,
    DTYPES,
    Case,
    Measured,
    Setting,
    UnableError,
    distance,
    matmul_rate,
    memory_of_process,
    step_memory,
    time_in_turn,
)
from report import Record, machine, table, write
from rich.console import Console
from workers import OURS, PEERS, Workers

from mmbeit.layers.autocast import multiplies_bfloat16

TOLERANCE = {'float32': 1e-4, 'bfloat16': 3e-2}  # relative distance of outputs
BUDGET = 600  # seconds in all


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
    parser.add_argument(
        '--plain-peers',
        action='store_true',
        help='on CPUs, leave the memory of peers to the C library, as their tools do, instead of keeping it for all',
    )
    parser.add_argument(
        '--batch', type=positive, help='images of a step of training, and of inference of many; each case has its own'
    )
    parser.add_argument('--quick', action='store_true', help='few and small cases, to see that it works')
    parser.add_argument('--budget', type=float, default=BUDGET, help='seconds in all, roughly (%(default)s)')
    parser.add_argument('--out-dir', type=Path, help='where the record goes; by default none is written')
    parser.add_argument('--name', help='of the record; by default the device and the month')
    parser.add_argument('--list', action='store_true', help='print the names of the cases')
    parser.add_argument('--memory-of', metavar='CONTENDER', help=argparse.SUPPRESS)  # of one step, in bytes
    return parser.parse_args(argv)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{number} is not 1 or more')
    return number


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
        (case, Setting(args.device, dtype, args.quick, args.batch))
        for case in cases
        for dtype in dtypes
        if dtype in case.dtypes
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


def measure(case: Case, setting: Setting, budget: float, workers: Workers) -> Iterator[Record]:
    """What is known of all contenders of a case: once they are timed, and again with the memory of each."""
    measured = {name: Measured() for name in case.contenders}
    expected = None
    for name, one in measured.items():
        try:
            one.items = workers.build(case.name, name, setting)
            output = workers.output(name)
        except UnableError as error:
            one.unable = str(error)
            continue
        if output is not None:
            expected = output if expected is None else expected
            one.difference = distance(output, expected)
            if not one.difference <= TOLERANCE[setting.dtype]:
                one.unable = f'its output differs by {one.difference:.1e}'
    ready = [name for name, one in measured.items() if not one.unable]
    if case.flops:
        for name in ready if case.growth else ready[:1]:
            measured[name].flops = workers.call(name, work.flops, name)
        for name in ready:
            measured[name].attention = workers.call(name, work.attention, name)
    rate = matmul_rate(setting) if case.flops else None
    for name, times in time_in_turn({name: workers.step(setting.device, name) for name in ready}, budget).items():
        measured[name].times = times
    share = None
    first = next(iter(measured.values()))
    if rate is not None and first.times:
        share = first.flops / first.time / max(rate, matmul_rate(setting))
    yield Record(case, setting, measured, share)
    if case.memory and setting.device == 'cuda':
        for name in ready:
            measured[name].memory = workers.call(name, work.memory, name, setting.device)
    workers.forget()
    if case.memory and setting.device == 'cpu':
        for name in ready:
            measured[name].memory = memory_of_process(case.name, name, setting)
    yield Record(case, setting, measured, share)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.list:
        for case in CASES.values():
            print(f'{case.name:32}{case.title}')
        return
    to_do = chosen(args)
    if args.memory_of:
        case, setting = to_do[0]
        print(json.dumps(step_memory(case.contenders[args.memory_of](setting), setting.device)))
        return
    console = Console()
    records, done, start, on = [], [], time.monotonic(), machine(args.device)
    arguments = argv if argv is not None else sys.argv[1:]
    stem = args.name or f'{args.device}_{on["date"][:7].replace("-", "")}'
    keepers = (OURS,) if args.plain_peers else (OURS, *PEERS)
    with Workers(keep_memory=keepers if args.device == 'cpu' else ()) as workers:
        for i, (case, setting) in enumerate(to_do):
            left = args.budget - (time.monotonic() - start)
            console.print(
                f'{case.name}, {setting.dtype} ({i + 1} of {len(to_do)}, {max(left, 0):.0f} s left)', style='dim'
            )
            # What is not timing (building, compiling, memory) takes about as long again.
            try:
                for record in measure(case, setting, max(left, 0) / (len(to_do) - i) / 2, workers):
                    records = [*done, record]
                    if args.out_dir is not None:  # what was measured is not lost if the rest is broken off
                        write(args.out_dir, stem, records, on, arguments)
            except UnableError as error:
                console.print(f'{case.name} is broken off: {error}')
                workers.forget()
            if len(records) > len(done):
                console.print(table(records[-1]))
            done = records


if __name__ == '__main__':
    main()
