"""BEiT v2 on real images in a few minutes, tokenizer and probes included: `make quickstart-v2`.

Everything runs through the ordinary configs and tools; this file only starts them, follows their logs, and prints what
they measured. The teacher of the tokenizer is the BEiT that the first quickstart pretrains without labels; its weights
are taken if they are there, else they are trained here. Then VQ-KD turns what it has learned into tokens, BEiT v2 is
pretrained on these, and fifty labelled scans are fine-tuned on: from scratch, from BEiT, and from BEiT v2.
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import mean, pstdev

from rich.console import Console
from rich.table import Table

from mmbeit.apis.model import get_model
from mmbeit.engine.processes import Run, last_checkpoint, last_metrics, train_stages
from mmbeit.engine.quickstart import PRETRAIN as TEACHER
from mmbeit.engine.quickstart import SECONDS, TOKENIZER, digit_options, finetuning, pretrained_in, pretraining
from mmbeit.engine.quiet import quiet
from mmbeit.probing import KNNProbe, LinearProbe, Probed, probe
from mmbeit.probing.report import draw
from mmbeit.probing.training import Training
from mmbeit.resources import resource_root

CONFIGS = resource_root() / 'configs' / 'beitv2' / 'quickstart'
VQKD = CONFIGS / 'vqkd_beit-teacher_digits.py'
PRETRAIN = CONFIGS / 'beitv2_beit-mini-p4_1xb64-amp-coslr-90e_digits.py'
STARTS = {'scratch': 'from scratch', 'beit': 'from BEiT, the teacher', 'beitv2': 'from BEiT v2'}
VQKD_SECONDS = 50  # roughly, a share of the progress bar


def runs(args: argparse.Namespace, teacher: Path | None, seeds: Iterable[int]) -> Iterator[list[Run]]:
    """The runs, stage by stage; those of one stage may happen side by side, the stages need what came before.

    Args:
        args: Of the command line.
        teacher: Weights of the teacher, if there are any yet.
        seeds: Of the fine-tuning.
    """
    root = args.work_dir
    options = digit_options(args.data, args.epochs)
    data, held_out = options
    scratch = list(finetuning('scratch', None, root, options, seeds))
    if teacher is None:
        yield from pretraining(root / 'dvae', root / 'teacher', options, beside=scratch)
        teacher, scratch = last_checkpoint(root / 'teacher'), []
    teaching = f'model.teacher.init_cfg.checkpoint={teacher}'
    vqkd = Run('distilling it into tokens', VQKD, root / 'vqkd', (*data, *held_out, teaching), VQKD_SECONDS)
    yield [vqkd, *scratch]
    tokens = f'{TOKENIZER}={last_checkpoint(root / "vqkd")}'
    pretrain = Run('pretraining BEiT v2 on these', PRETRAIN, root / 'pretrain', (*data, tokens), SECONDS['pretrain'])
    yield [pretrain, *finetuning('beit', teacher, root, options, seeds)]
    yield list(finetuning('beitv2', last_checkpoint(root / 'pretrain'), root, options, seeds))


def probes(args: argparse.Namespace, config: Path, checkpoint: Path) -> Probed:
    """Linear and nearest-neighbour probes of every block of a frozen backbone, with all labels."""
    epochs = Training().epochs if args.epochs is None else args.epochs
    with quiet():
        model = get_model(str(config), pretrained=checkpoint)
    return probe(
        model,
        args.data / 'train',
        args.data / 'val',
        (LinearProbe(Training(epochs=epochs)), KNNProbe()),
        cache=args.work_dir / 'features',
        num_workers=1,
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--data', type=Path, default=Path('data/digits'), help='written by dataset_converters/digits.py'
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/quickstart-v2'))
    parser.add_argument(
        '--teacher',
        type=Path,
        default=Path('work_dirs/quickstart/pretrain'),
        help='work folder of its pretraining (%(default)s); it is trained if that holds no checkpoint',
    )
    parser.add_argument('--seeds', type=int, default=3, help='how often to fine-tune, each time on other labels')
    parser.add_argument('--epochs', type=int, help='of every run, for a trial')
    args = parser.parse_args(argv)
    console = Console()
    start = time.monotonic()
    seeds = range(args.seeds)
    teacher = pretrained_in(args.teacher)
    seconds = VQKD_SECONDS + SECONDS['pretrain'] + len(STARTS) * args.seeds * SECONDS['finetune']
    seconds += 0 if teacher else SECONDS['dvae'] + SECONDS['pretrain']
    train_stages(runs(args, teacher, seeds), seconds, console)
    report(args, console, seeds, teacher or last_checkpoint(args.work_dir / 'teacher'))
    console.print(f'{time.monotonic() - start:.0f} s in all')


def report(args: argparse.Namespace, console: Console, seeds: Iterable[int], teacher: Path) -> None:
    """Print the table, the gains, the health of the tokenizer and the probes, from what was logged and measured."""
    root = args.work_dir
    accuracy = {name: [last_metrics(root / f'{name}-{seed}')['accuracy/top1'] for seed in seeds] for name in STARTS}
    table = Table('fine-tuned on 50 scans', *(f'seed {seed}' for seed in seeds), 'mean', 'std')
    for name, title in STARTS.items():
        numbers = [*accuracy[name], mean(accuracy[name]), pstdev(accuracy[name])]
        table.add_row(title, *(f'{value:.1f}' for value in numbers))
    table.title = 'top-1 accuracy (%) on 360 held-out scans'
    console.print(table)
    gains = {name: mean(accuracy['beitv2']) - mean(accuracy[name]) for name in ('scratch', 'beit')}
    console.print(f'BEiT v2: {gains["scratch"]:+.1f} points over scratch, {gains["beit"]:+.1f} over its teacher.')
    usage = last_metrics(root / 'vqkd')
    used, perplexity, error = (usage[f'codebook/{name}'] for name in ('usage', 'perplexity', 'error'))
    console.print(
        f'Tokenizer: {used:.0f} % of its codes in use, perplexity {perplexity:.0f}; what it keeps of the teacher is '
        f'off by {error:.3f} (1 - cosine).'
    )
    probed = {
        'beit': probes(args, TEACHER, teacher),
        'beitv2': probes(args, PRETRAIN, last_checkpoint(root / 'pretrain')),
    }
    table = Table('frozen, all 1,437 labels', 'linear', 'best block', 'neighbours', 'best block')
    for name, one in probed.items():
        cells = []
        for kind in ('linear', 'knn'):
            best = one[kind].best
            cells += [f'{one[kind].of_block(best).val:.1f}', str(best + 1)]
        table.add_row(STARTS[name].removeprefix('from '), *cells)
        draw(one, STARTS[name].removeprefix('from ')).savefig(root / f'blocks-{name}.png', dpi=120)
    table.title = 'top-1 accuracy (%) of probes'
    console.print(table)
    console.print(f'{root / "blocks-beit.png"}, {root / "blocks-beitv2.png"}')
    results = {
        'accuracy': accuracy,
        'gains': gains,
        'codebook': usage,
        'probes': {name: {m.probe: dict(best=m.best, val=m.val) for m in one.measured} for name, one in probed.items()},
    }
    (root / 'results.json').write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
    main()
