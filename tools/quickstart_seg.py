"""Segmentation of real images in a few minutes, from pretrained weights and from scratch: `make quickstart-seg`.

Everything runs through the ordinary configs and tools; this file only starts them, follows their logs, and prints what
they measured. BEiT is pretrained on scans of digits, as in the other quickstart, whose weights are taken if they are
there. Then UPerNet learns to find digits in pictures with photographs as grounds, by one recipe: once on these weights,
once on a backbone that starts from scratch.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib.figure
import numpy as np
from mmengine.config import Config
from mmengine.fileio import load
from PIL import Image
from rich.console import Console
from rich.table import Table

from mmbeit.engine.processes import Run, command, last_checkpoint, precision_options, train_stages
from mmbeit.resources import resource_root

CONFIGS = resource_root() / 'configs' / 'beit' / 'quickstart'
DVAE = CONFIGS / 'dvae_digits.py'
PRETRAIN = CONFIGS / 'beit_beit-mini-p4_1xb128-amp-coslr-150e_digits.py'
SEGMENT = CONFIGS / 'beit-mini-p4_upernet_1xb4-800i_scenes.py'
STARTS = {'scratch': 'from scratch', 'beit': 'from BEiT'}
NUM_PICTURES = 6
IGNORED = 255
SECONDS = {'dvae': 30, 'pretrain': 190, 'segment': 220}  # of one run, roughly: shares of the progress bar


def runs(args: argparse.Namespace, pretrained: Path | None) -> Iterator[list[Run]]:
    """The runs, stage by stage; those of one stage may happen side by side, the stages need what came before.

    Args:
        args: Of the command line.
        pretrained: Weights of a backbone, if there are any yet.
    """
    root = args.work_dir
    short = () if args.epochs is None else (f'train_cfg.max_epochs={args.epochs}',)
    digits = (*precision_options(), *short, f'train_dataloader.dataset.data_root={args.digits}')
    if pretrained is None:
        held_out = f'val_dataloader.dataset.data_root={args.digits}'
        yield [Run('training a tokenizer', DVAE, root / 'dvae', (*digits, held_out), SECONDS['dvae'])]
        tokenizer = f'model.target_generator.init_cfg.checkpoint={last_checkpoint(root / "dvae")}'
        run = Run(
            'pretraining BEiT on its tokens', PRETRAIN, root / 'pretrain', (*digits, tokenizer), SECONDS['pretrain']
        )
        yield [run]
        pretrained = last_checkpoint(root / 'pretrain')
    weights = {'scratch': 'model.backbone.init_cfg=None', 'beit': f'model.backbone.init_cfg.checkpoint={pretrained}'}
    short = (
        () if args.epochs is None else (f'train_cfg.max_iters={args.epochs}', f'train_cfg.val_interval={args.epochs}')
    )
    folders = [f'{split}_dataloader.dataset.data_root={args.scenes}' for split in ('train', 'val')]
    yield [
        Run(
            'learning to segment',
            SEGMENT,
            root / name,
            (*precision_options(), *short, *folders, start),
            SECONDS['segment'],
        )
        for name, start in weights.items()
    ]


def predictions(args: argparse.Namespace, name: str) -> list[dict]:
    """Evaluate the model of a run with `tools/test.py`: a data sample for each picture."""
    out = args.work_dir / name / 'predictions.pkl'
    options = ['--cfg-options', f'test_dataloader.dataset.data_root={args.scenes}']
    testing = command('test', SEGMENT, last_checkpoint(args.work_dir / name), '--work-dir', out.parent, '--out', out)
    subprocess.run([*testing, *options], check=True, capture_output=True)
    return load(out)


def intersection_over_union(samples: list[dict], num_classes: int) -> np.ndarray:
    """IoU of every class over all pictures, in percent; not a number for a class that neither has."""
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    for sample in samples:
        truth, found = (np.asarray(sample[key]['data'])[0] for key in ('gt_sem_seg', 'pred_sem_seg'))
        counted = truth != IGNORED
        pairs = truth[counted] * num_classes + found[counted]
        confusion += np.bincount(pairs, minlength=num_classes**2).reshape(confusion.shape)
    both = np.diag(confusion)
    with np.errstate(invalid='ignore'):
        return 100 * both / (confusion.sum(0) + confusion.sum(1) - both)


def draw(samples: dict[str, list[dict]], num_classes: int) -> matplotlib.figure.Figure:
    """A row for each of some pictures: the picture, its labels, and what each model says."""
    colours = np.concatenate([[[0.15, 0.15, 0.15]], matplotlib.colormaps['tab10'](np.arange(10))[:, :3]])
    chosen = np.linspace(0, len(samples['beit']) - 1, NUM_PICTURES).round().astype(int)
    figure = matplotlib.figure.Figure(figsize=(2 * (2 + len(samples)), 2 * NUM_PICTURES + 0.4), layout='constrained')
    axes = figure.subplots(NUM_PICTURES, 2 + len(samples))
    for row, i in zip(axes, chosen, strict=True):
        sample = samples['beit'][i]
        maps = [np.asarray(sample['gt_sem_seg']['data'])[0]]
        maps += [np.asarray(of[i]['pred_sem_seg']['data'])[0] for of in samples.values()]
        row[0].imshow(np.asarray(Image.open(sample['img_path'])))
        for axis, labels in zip(row[1:], maps, strict=True):
            axis.imshow(np.where((labels == IGNORED)[..., None], 1.0, colours[np.minimum(labels, num_classes - 1)]))
    for axis, title in zip(axes[0], ('picture', 'labels', *(STARTS[name] for name in samples)), strict=True):
        axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--digits', type=Path, default=Path('data/digits'), help='written by dataset_converters/digits.py'
    )
    parser.add_argument(
        '--scenes', type=Path, default=Path('data/digit_scenes'), help='written by digit_scenes.py there'
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/quickstart_seg'))
    parser.add_argument(
        '--pretrained',
        type=Path,
        default=Path('work_dirs/quickstart/pretrain/epoch_150.pth'),
        help='weights of the other quickstart; if there is no such file, they are trained first',
    )
    parser.add_argument('--epochs', type=int, help='of every run, or iterations, for a trial')
    args = parser.parse_args(argv)
    console = Console()
    start = time.monotonic()
    pretrained = args.pretrained if args.pretrained.is_file() else None
    seconds = 2 * SECONDS['segment'] + (0 if pretrained else SECONDS['dvae'] + SECONDS['pretrain'])
    train_stages(runs(args, pretrained), seconds, console)
    report(args, console)
    console.print(f'{time.monotonic() - start:.0f} s in all')


def report(args: argparse.Namespace, console: Console) -> None:
    """Print the IoU of every class and their mean, write the picture and the numbers."""
    classes = Config.fromfile(SEGMENT).classes
    samples = {name: predictions(args, name) for name in STARTS}
    results = {name: intersection_over_union(of, len(classes)) for name, of in samples.items()}
    trained = len(list((args.scenes / 'images' / 'training').iterdir()))
    table = Table('', *classes, 'mean')
    table.title = f'IoU (%) of {len(samples["beit"])} held-out pictures, after training on {trained}'
    for name, title in STARTS.items():
        table.add_row(title, *(f'{value:.1f}' for value in (*results[name], np.nanmean(results[name]))))
    console.print(table)
    means = {name: float(np.nanmean(values)) for name, values in results.items()}
    console.print(f'BEiT pretraining on 1,437 scans, labels unused: {means["beit"] - means["scratch"]:+.1f} points.')
    draw(samples, len(classes)).savefig(args.work_dir / 'segmentation.png', dpi=120)
    console.print(
        f'{args.work_dir / "segmentation.png"}: {NUM_PICTURES} pictures, their labels, and what the models say'
    )
    numbers = {'classes': classes, 'IoU': {name: values.tolist() for name, values in results.items()}, 'mIoU': means}
    (args.work_dir / 'results.json').write_text(json.dumps(numbers, indent=2) + '\n')


if __name__ == '__main__':
    main()
