"""Tokenizer, pretraining, fine-tuning and evaluation on real images in a few minutes: `make quickstart`.

Everything runs through the ordinary configs and tools; this file only starts them, follows their logs, and prints what
they measured. Fifty labelled scans are fine-tuned on, once from BEiT's weights and once from scratch, by one recipe.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import mean, pstdev
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

TOOLS = Path(__file__).parent
CONFIGS = TOOLS.parent / 'configs' / 'beit' / 'quickstart'
DVAE = CONFIGS / 'dvae_digits.py'
PRETRAIN = CONFIGS / 'beit_beit-mini-p4_1xb128-amp-coslr-150e_digits.py'
FINETUNE = CONFIGS / 'beit-mini-p4_1xb50-coslr-200e_digits.py'
NUM_PICTURES = 6
TOKENIZER = 'model.target_generator.init_cfg.checkpoint'
SECONDS = {'dvae': 30, 'pretrain': 190, 'finetune': 10}  # of one run, roughly: shares of the progress bar


class Run(NamedTuple):
    """One call of `tools/train.py`."""

    name: str
    config: Path
    work_dir: Path
    options: tuple[str, ...]
    seconds: int  # a rough share of the whole, for the progress bar


class RunError(Exception):
    """A run ended with an error; the message shows the end of its log."""


def train(run: Run, progress: Progress, task: TaskID) -> None:
    """Start a run and move the progress bar with the epochs that its log reports."""
    command = [sys.executable, str(TOOLS / 'train.py'), str(run.config), '--work-dir', str(run.work_dir)]
    if run.options:
        command += ['--cfg-options', *run.options]
    run.work_dir.mkdir(parents=True, exist_ok=True)
    progress.update(task, description=run.name)
    done = 0.0
    lines: list[str] = []
    # One thread: the models are so small that a second one costs more than it gives.
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    with (
        (run.work_dir / 'output.log').open('w') as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process,
    ):
        for line in process.stdout:
            log.write(line)
            lines = [*lines[-14:], line]
            found = re.search(r'Epoch\(train\)\s+\[(\d+)\].* eta: (\S+)', line)
            total = re.search(r'max_epochs = (\d+)', line)
            if total:
                num_epochs = int(total.group(1))
            if found:
                share = int(found.group(1)) / num_epochs
                progress.update(task, advance=(share - done) * run.seconds)
                done = share
    if process.returncode:
        raise RunError(f'{run.name} failed, see {run.work_dir / "output.log"}:\n{"".join(lines)}')
    progress.update(task, advance=(1 - done) * run.seconds)


def last_metrics(work_dir: Path) -> dict[str, float]:
    """The last validation that a run logged."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in logs[-1].read_text().splitlines()]
    return [record for record in records if not record.keys() & {'loss', 'lr'}][-1]


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices by itself; emulation would be slower than float32."""
    capabilities = getattr(torch.cpu, 'get_capabilities', dict)()
    return any(capabilities.get(name) for name in ('avx512_bf16', 'amx_bf16', 'bf16'))


def last_checkpoint(work_dir: Path) -> Path:
    return Path((work_dir / 'last_checkpoint').read_text())


def runs(args: argparse.Namespace, seeds: Iterable[int]) -> Iterator[list[Run]]:
    """The runs, stage by stage; those of one stage may happen side by side, the stages need what came before."""
    root = args.work_dir
    options = () if has_bfloat16() else ('optim_wrapper.type=OptimWrapper',)
    if args.epochs:
        options = (*options, f'train_cfg.max_epochs={args.epochs}', f'train_cfg.val_interval={args.epochs}')
    data = f'train_dataloader.dataset.data_root={args.data}'
    held_out = f'val_dataloader.dataset.data_root={args.data}'
    yield [Run('training a tokenizer', DVAE, root / 'dvae', (*options, data, held_out), SECONDS['dvae'])]
    tokenizer = f'{TOKENIZER}={last_checkpoint(root / "dvae")}'
    options_without_validation = tuple(option for option in options if 'val_interval' not in option)
    pretraining = (*options_without_validation, data, tokenizer)
    yield [Run('pretraining BEiT on its tokens', PRETRAIN, root / 'pretrain', pretraining, SECONDS['pretrain'])]
    pretrained = last_checkpoint(root / 'pretrain')
    finetuning = []
    for seed in seeds:
        common = (
            *options,
            data,
            held_out,
            f'randomness.seed={seed}',
            f'train_dataloader.dataset.ann_file=labelled_{seed}.txt',
        )
        for name, weights in (
            ('scratch', ('model.backbone.init_cfg=None',)),
            ('beit', (f'model.backbone.init_cfg.checkpoint={pretrained}',)),
        ):
            description = 'fine-tuning on 50 labelled images'
            finetuning.append(
                Run(description, FINETUNE, root / f'{name}-{seed}', (*common, *weights), SECONDS['finetune'])
            )
    yield finetuning


def predict(checkpoint: Path, image: Path) -> tuple[str, float]:
    """Ask a fine-tuned model about one image: its class and the probability."""
    from mmengine.logging import MMLogger

    import mmbeit  # noqa: F401  a CPU build of torch needs it before torchvision

    MMLogger.get_instance('mmengine', log_level='ERROR')
    with redirect_stdout(StringIO()), warnings.catch_warnings():  # importing mmpretrain is noisy
        warnings.simplefilter('ignore')
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
    columns = (TextColumn('{task.description:<36}'), BarColumn(), TimeElapsedColumn(), TextColumn('left'))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task('', total=SECONDS['dvae'] + SECONDS['pretrain'] + 2 * args.seeds * SECONDS['finetune'])
        try:
            for stage in runs(args, seeds):
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(lambda run: train(run, progress, task), stage))
        except RunError as error:
            console.print(str(error), markup=False)
            raise SystemExit(1) from None
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
    command = [sys.executable, str(TOOLS / 'visualize_tokens.py'), str(PRETRAIN), checkpoints['pretrain'], *chosen]
    options = ['--out', str(picture), '--cfg-options', f'{TOKENIZER}={checkpoints["dvae"]}']
    drawn = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    console.print(drawn.stdout.splitlines()[-1])
    results = {'accuracy': accuracy, 'gain': gain, 'codebook': usage}
    (root / 'results.json').write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
    main()
