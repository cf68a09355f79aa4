"""Measure what a frozen backbone is worth, block by block: `python tools/probe.py MODEL --train DIR --val DIR`."""

import argparse
import json
import os
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from rich.console import Console

from mmbeit.engine.config import Override, check_override, find_config, read_config
from mmbeit.engine.errors import readable_errors
from mmbeit.engine.memory import keep_freed_memory
from mmbeit.probing.attentive import AttentiveProbe
from mmbeit.probing.knn import KNNProbe
from mmbeit.probing.linear import LinearProbe
from mmbeit.probing.report import by_block, by_setting, draw, sentences, to_dict
from mmbeit.probing.run import Probe, Probed, probe
from mmbeit.probing.training import Training

KINDS = ('linear', 'knn', 'attentive')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Measure what a frozen backbone is worth, block by block',
        epilog='A run that was stopped goes on where it was, with the same command; features are computed once.',
    )
    parser.add_argument('model', help='name of a model of mmbeit, or path or name of a config')
    parser.add_argument(
        'checkpoint', nargs='?', help="path or URL; by default the published weights; 'none' for weights as drawn"
    )
    parser.add_argument('--train', required=True, metavar='DIR', help='images to train on, in DIR/CLASS/')
    parser.add_argument('--val', required=True, metavar='DIR', help='images to measure on, in DIR/CLASS/')
    parser.add_argument('--train-ann-file', metavar='FILE', help='list of lines NAME LABEL, names relative to --train')
    parser.add_argument('--val-ann-file', metavar='FILE', help='likewise, of --val')
    parser.add_argument('--kind', nargs='+', choices=KINDS, default=['linear', 'knn'], help='probes (linear knn)')
    parser.add_argument(
        '--block', type=int, help='that the attentive probe looks at (the best one of linear, or of knn)'
    )
    training = Training()
    parser.add_argument('--epochs', type=int, default=training.epochs, help='of linear and attentive (%(default)s)')
    parser.add_argument(
        '--rates', type=float, nargs='+', default=training.rates, metavar='RATE', help='learning rates to try'
    )
    parser.add_argument('--k', type=int, nargs='+', default=KNNProbe().ks, help='numbers of neighbours to try')
    parser.add_argument(
        '--held-out', type=float, default=0.2, metavar='SHARE', help='of the training images, to choose with (0.2)'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', type=int, nargs='+', metavar='PIXELS', help="height and width (the model's)")
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast in the backbone')
    parser.add_argument('--batch-size', type=int, default=64, help='images at once (%(default)s)')
    parser.add_argument(
        '--num-workers', type=int, default=min(8, os.cpu_count()), help='that read images (%(default)s)'
    )
    parser.add_argument('--device', help='such as cpu or cuda:1 (the first GPU, if there is one)')
    parser.add_argument('--cache', default='work_dirs/probe/features', metavar='DIR', help='for features (%(default)s)')
    parser.add_argument('--dtype', choices=('float16', 'float32'), default='float16', help='of the cache (%(default)s)')
    parser.add_argument('--out', metavar='DIR', help='for results.json and blocks.png (work_dirs/probe/MODEL/WEIGHTS)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Override, default={}, metavar='KEY=VALUE', help='override the config'
    )
    args = parser.parse_args(argv)
    if args.size and len(args.size) > 2:
        parser.error(f'--size takes one or two numbers, not {len(args.size)}')
    return args


def probes_of(args: argparse.Namespace) -> list[Probe]:
    training = Training(epochs=args.epochs, rates=tuple(args.rates))
    probes = dict(
        linear=LinearProbe(training), knn=KNNProbe(ks=tuple(args.k)), attentive=AttentiveProbe(args.block, training)
    )
    return [probes[kind] for kind in KINDS if kind in args.kind]


def model_of(args: argparse.Namespace) -> str | Config:
    if not args.cfg_options:
        return args.model
    cfg = read_config(find_config(args.model))
    for key in args.cfg_options:
        check_override(cfg, key, args.cfg_options)
    cfg.merge_from_dict(args.cfg_options)
    return cfg


def report(args: argparse.Namespace, probed: Probed) -> None:
    """Print and write what was measured."""
    name = Path(args.model).name.removesuffix('.py')
    weights = Path(args.checkpoint).stem if args.checkpoint else 'published'
    out = Path(args.out or Path('work_dirs', 'probe', name, weights))
    out.mkdir(parents=True, exist_ok=True)
    results = dict(model=args.model, checkpoint=args.checkpoint, **to_dict(probed))
    (out / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
    title = f'{name}, weights: {weights}'
    draw(probed, title).savefig(out / 'blocks.png', dpi=120)
    console = Console()
    for one in probed.measured:
        console.print(by_setting(one))
    console.print(by_block(probed, title))
    for line in (*sentences(probed), f'{out / "results.json"}, {out / "blocks.png"}'):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with readable_errors():
        torch.manual_seed(args.seed)  # of weights that are drawn
        if args.device == 'cpu' or not torch.cuda.is_available():
            keep_freed_memory()
        try:
            probed = probe(
                model_of(args),
                (args.train, args.train_ann_file),
                (args.val, args.val_ann_file),
                probes_of(args),
                pretrained={None: True, 'none': False}.get(args.checkpoint, args.checkpoint),
                size=args.size and (args.size[0], args.size[-1]),
                held_out=args.held_out,
                seed=args.seed,
                cache=args.cache,
                device=args.device,
                amp=args.amp,
                dtype=getattr(torch, args.dtype),
                batch_size=args.batch_size,
                num_workers=args.num_workers,
            )
        except KeyboardInterrupt:
            print('stopped; the same command goes on with the features that there are', file=sys.stderr)
            raise SystemExit(130) from None
        report(args, probed)


if __name__ == '__main__':
    main()
