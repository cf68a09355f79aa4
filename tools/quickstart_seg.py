"""Segmentation of real images in a few minutes, from pretrained weights and from scratch: `make quickstart-seg`.

Everything runs through the ordinary configs and tools; this file only starts them, follows their logs, and prints what
mmseg's metric measured. The backbone is the BEiT that the first quickstart pretrains without labels; its weights are
taken if they are there, else they are trained here. Then UPerNet learns by one recipe to find digits on photographs:
once on these weights, once on a backbone that starts from scratch.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib.figure
import numpy as np
from matplotlib.patches import Patch
from mmengine.config import Config
from mmengine.fileio import load
from PIL import Image
from rich.console import Console
from rich.table import Table

from mmbeit.engine.processes import Run, command, last_checkpoint, precision_options, train_stages
from mmbeit.engine.quickstart import CONFIGS, SECONDS, digit_options, pretrained_in, pretraining
from mmbeit.engine.quiet import quiet

SEGMENT = CONFIGS / 'beit-mini-p4_upernet_1xb4-800i_scenes.py'
SEGMENT_SECONDS = 220  # of one run, roughly: a share of the progress bar
STARTS = {'scratch': 'from scratch', 'beit': 'from BEiT'}
NUM_PICTURES = 6


def runs(args: argparse.Namespace, pretrained: Path | None) -> Iterator[list[Run]]:
    """The runs, stage by stage; those of one stage may happen side by side, the stages need what came before.

    Args:
        args: Of the command line.
        pretrained: Weights of a backbone, if there are any yet.
    """
    root = args.work_dir
    if pretrained is None:
        yield from pretraining(root / 'dvae', root / 'pretrain', digit_options(args.digits, args.epochs))
        pretrained = last_checkpoint(root / 'pretrain')
    options = [f'{split}_dataloader.dataset.data_root={args.scenes}' for split in ('train', 'val')]
    if args.iters is not None:
        options += [f'train_cfg.{key}={args.iters}' for key in ('max_iters', 'val_interval')]
        options.append(f'default_hooks.checkpoint.interval={args.iters}')
    weights = {'scratch': 'model.backbone.init_cfg=None', 'beit': f'model.backbone.init_cfg.checkpoint={pretrained}'}
    yield [
        Run('learning to segment', SEGMENT, root / name, (*precision_options(), *options, start), SEGMENT_SECONDS)
        for name, start in weights.items()
    ]


def predictions(args: argparse.Namespace, name: str) -> list[dict]:
    """A data sample, with labels and classes found, of each held-out picture, by the model of a run."""
    work_dir = args.work_dir / name
    out = work_dir / 'predictions.pkl'
    options = ['--out', out, '--cfg-options', f'test_dataloader.dataset.data_root={args.scenes}']
    testing = command('test', SEGMENT, last_checkpoint(work_dir), '--work-dir', work_dir, *options)
    subprocess.run(testing, check=True, capture_output=True)
    return load(out)


def class_iou(samples: list[dict], classes: tuple[str, ...]) -> list[float]:
    """IoU of every class in percent, by mmseg's metric, which logs it but returns the mean alone."""
    with quiet():
        from mmseg.evaluation import IoUMetric

    metric = IoUMetric(prefix='scenes')  # without one it warns
    metric.dataset_meta = dict(classes=classes)
    metric.process({}, samples)
    areas = [sum(areas) for areas in zip(*metric.results, strict=True)]
    return (100 * IoUMetric.total_area_to_metrics(*areas)['IoU']).tolist()


def draw(samples: dict[str, list[dict]], classes: tuple[str, ...]) -> matplotlib.figure.Figure:
    """A row for each of some pictures: the picture, its labels, and what each model says."""
    colours = np.concatenate([[[0.15] * 3], matplotlib.colormaps['tab10'](np.arange(10))[:, :3], [[1.0] * 3]])
    labels = {name: [sample['pred_sem_seg'] for sample in of] for name, of in samples.items()}
    labels = {'labels': [sample['gt_sem_seg'] for sample in samples['beit']], **labels}
    chosen = np.linspace(0, len(samples['beit']) - 1, NUM_PICTURES).round().astype(int)
    width = 1 + len(labels)
    figure = matplotlib.figure.Figure(figsize=(2 * width, 2 * NUM_PICTURES + 0.8), layout='constrained')
    axes = figure.subplots(NUM_PICTURES, width)
    for row, i in zip(axes, chosen, strict=True):
        row[0].imshow(np.asarray(Image.open(samples['beit'][i]['img_path'])))
        for axis, of in zip(row[1:], labels.values(), strict=True):
            axis.imshow(colours[of[i]['data'][0].numpy().clip(max=len(classes))])  # what is ignored is white
    for axis, title in zip(axes[0], ('picture', *(STARTS.get(name, name) for name in labels)), strict=True):
        axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set_axis_off()
    names = (*classes, 'ignored')
    patches = [
        Patch(facecolor=colour, edgecolor='grey', label=name) for colour, name in zip(colours, names, strict=True)
    ]
    figure.legend(handles=patches, loc='outside lower center', ncols=len(names) // 2, frameon=False, fontsize=8)
    return figure


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--digits', type=Path, default=Path('data/digits'), help='written by dataset_converters/digits.py'
    )
    parser.add_argument(
        '--scenes', type=Path, default=Path('data/digit_scenes'), help='written by dataset_converters/digit_scenes.py'
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/quickstart-seg'))
    parser.add_argument(
        '--pretrained',
        type=Path,
        default=Path('work_dirs/quickstart/pretrain'),
        help='work folder of the pretraining (%(default)s); it is done here if that holds no checkpoint',
    )
    parser.add_argument('--epochs', type=int, help='of the pretraining, for a trial')
    parser.add_argument('--iters', type=int, help='steps of the segmentation, for a trial')
    args = parser.parse_args(argv)
    console = Console()
    start = time.monotonic()
    pretrained = pretrained_in(args.pretrained)
    seconds = len(STARTS) * SEGMENT_SECONDS
    seconds += 0 if pretrained else SECONDS['dvae'] + SECONDS['pretrain']
    train_stages(runs(args, pretrained), seconds, console)
    report(args, console)
    console.print(f'{time.monotonic() - start:.0f} s in all')


def report(args: argparse.Namespace, console: Console) -> None:
    """Print the IoU of every class and the gain, write the picture and the numbers."""
    classes = tuple(Config.fromfile(SEGMENT).classes)
    samples = {name: predictions(args, name) for name in STARTS}
    results = {name: class_iou(of, classes) for name, of in samples.items()}
    means = {name: float(np.nanmean(values)) for name, values in results.items()}
    table = Table('class', *STARTS.values())
    trained = len(list((args.scenes / 'images' / 'training').iterdir()))
    table.title = f'IoU (%) on {len(samples["beit"])} pictures after {trained}'
    for i, title in enumerate(classes):
        table.add_row(title, *(f'{results[name][i]:.1f}' for name in STARTS), end_section=title == classes[-1])
    table.add_row('mean', *(f'{means[name]:.1f}' for name in STARTS))
    console.print(table)
    gain = means['beit'] - means['scratch']
    console.print(f'BEiT pretraining on 1,437 scans, labels unused: {gain:+.1f} points.')
    picture = args.work_dir / 'segmentation.png'
    draw(samples, classes).savefig(picture, dpi=120)
    console.print(f'{picture}: {NUM_PICTURES} held-out pictures, their labels, and what the models say')
    numbers = {'classes': classes, 'IoU': results, 'mIoU': means, 'gain': gain}
    (args.work_dir / 'results.json').write_text(json.dumps(numbers, indent=2) + '\n')


if __name__ == '__main__':
    main()
