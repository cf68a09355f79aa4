"""Tokenizer, pretraining, fine-tuning and evaluation on real images in a few minutes: `make quickstart`.

Everything runs through the ordinary configs and tools; this file only starts them, follows their logs, and prints what
they measured. Fifty labelled scans are fine-tuned on, once from BEiT's weights and once from scratch, by one recipe.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import mean, pstdev

from rich.console import Console
from rich.table import Table

from mmbeit.engine.processes import Run, command, last_checkpoint, last_metrics, train_stages
from mmbeit.engine.quickstart import FINETUNE, PRETRAIN, SECONDS, TOKENIZER, digit_options, finetuning, pretraining
from mmbeit.engine.quiet import quiet

NUM_PICTURES = 6


def runs(args: argparse.Namespace, seeds: Iterable[int]) -> Iterator[list[Run]]:
    """The runs, stage by stage; those of one stage may happen side by side, the stages need what came before."""
    root = args.work_dir
    options = digit_options(args.data, args.epochs)
    yield from pretraining(root / 'dvae', root / 'pretrain', options, finetuning('scratch', None, root, options, seeds))
    yield list(finetuning('beit', last_checkpoint(root / 'pretrain'), root, options, seeds))


def predict(checkpoint: Path, image: Path) -> tuple[str, float]:
    """Ask a fine-tuned model about one image: its class and the probability."""
    with quiet():
        from mmpretrain import ImageClassificationInferencer

        inferencer = ImageClassificationInferencer(str(FINETUNE), pretrained=str(checkpoint), device='cpu')
        result = inferencer(str(image))[0]
    return str(result['pred_label']), result['pred_score']


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--data', type=Path, default=Path('data/digits'), help='written by dataset_converters/digits.py'
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/quickstart'))
    parser.add_argument('--seeds', type=int, default=3, help='how often to fine-tune, each time on other labels')
    parser.add_argument('--epochs', type=int, help='of every run, for a trial')
    args = parser.parse_args(argv)
    console = Console()
    start = time.monotonic()
    seeds = range(args.seeds)
    seconds = SECONDS['dvae'] + SECONDS['pretrain'] + 2 * args.seeds * SECONDS['finetune']
    train_stages(runs(args, seeds), seconds, console)
    report(args, console, seeds)
    console.print(f'{time.monotonic() - start:.0f} s in all')


def report(args: argparse.Namespace, console: Console, seeds: Iterable[int]) -> None:
    """Print the table, the gain, one prediction and the picture's name, from what the runs logged."""
    root = args.work_dir
    usage = last_metrics(root / 'dvae')
    accuracy = {
        name: [last_metrics(root / f'{name}-{seed}')['accuracy/top1'] for seed in seeds] for name in ('scratch', 'beit')
    }
    table = Table('fine-tuned on 50 scans', *(f'seed {seed}' for seed in seeds), 'mean', 'std')
    for name, title in (('scratch', 'from scratch'), ('beit', 'from BEiT')):
        values = accuracy[name]
        numbers = [*values, mean(values), pstdev(values)]
        table.add_row(title, *(f'{value:.1f}' for value in numbers))
    table.title = 'top-1 accuracy (%) on 360 held-out scans'
    console.print(table)
    gain = mean(accuracy['beit']) - mean(accuracy['scratch'])
    console.print(f'BEiT pretraining on 1,437 scans, labels unused: {gain:+.1f} points.')
    console.print(
        f'Tokenizer: {usage["codebook/usage"]:.0f} % of its codes in use, '
        f'mean absolute error {usage["codebook/error"]:.3f} of reconstructed pixels.'
    )
    images = sorted((args.data / 'val').glob('*/*.png'))
    digit, score = predict(last_checkpoint(root / 'beit-0'), images[0])
    console.print(f'{images[0]} is a {digit}, says the model ({100 * score:.0f} %).')
    picture = root / 'tokens.png'
    chosen = [str(images[i * len(images) // NUM_PICTURES]) for i in range(NUM_PICTURES)]
    checkpoints = {name: str(last_checkpoint(root / name)) for name in ('dvae', 'pretrain')}
    options = ['--out', picture, '--cfg-options', f'{TOKENIZER}={checkpoints["dvae"]}']
    drawing = command('visualize_tokens', PRETRAIN, checkpoints['pretrain'], *chosen, *options)
    drawn = subprocess.run(drawing, check=True, capture_output=True, text=True)
    console.print(drawn.stdout.splitlines()[-1])
    results = {'accuracy': accuracy, 'gain': gain, 'codebook': usage}
    (root / 'results.json').write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
    main()
