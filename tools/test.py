"""Evaluate a checkpoint: `python tools/test.py CONFIG CHECKPOINT`."""

import argparse

import torch
from mmengine.config import Config, ConfigDict
from mmengine.fileio import dump
from mmengine.runner import Runner

from mmbeit.engine.checks import check_checkpoints, check_data
from mmbeit.engine.config import add_common_arguments, load_config
from mmbeit.engine.errors import readable_errors
from mmbeit.engine.loading import StartFromCheckpoint
from mmbeit.engine.memory import keep_freed_memory
from mmbeit.layers.kernels import set_attention_kernel


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint')
    parser.add_argument('config', help='path of a config, or name of a config or model of mmbeit')
    parser.add_argument('checkpoint', help='path or URL')
    add_common_arguments(parser)
    parser.add_argument('--tta', action='store_true', help='average over the images of `tta_pipeline` of the config')
    parser.add_argument('--out', help='file to write results to: .json for metrics, .pkl for predictions')
    parser.add_argument('--out-item', choices=('metrics', 'pred'), help='what to write; by default what --out ends in')
    return parser.parse_args(argv)


def apply_arguments(cfg: Config, args: argparse.Namespace) -> None:
    cfg.load_from = args.checkpoint
    if args.tta:
        missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
        if missing:
            raise ValueError(f'--tta: {args.config} has no {" and no ".join(missing)}')
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = ConfigDict(cfg.tta_model, module=cfg.model)
    if not args.out:
        if args.out_item:
            raise ValueError('--out-item says what to write, but there is no --out')
        return
    endings = {'metrics': ('.json', '.yml', '.yaml', '.pkl'), 'pred': ('.pkl', '.pickle')}
    args.out_item = args.out_item or ('pred' if args.out.endswith(endings['pred']) else 'metrics')
    if not args.out.endswith(endings[args.out_item]):
        raise ValueError(f'--out {args.out!r}: expected a name in .json for metrics, or in .pkl for predictions')
    if args.out_item == 'pred':
        evaluator = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        cfg.test_evaluator = [*evaluator, dict(type='DumpResults', out_file_path=args.out)]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with readable_errors() as preparation:
        cfg = load_config(args)
        set_attention_kernel(args.attention)
        if not torch.cuda.is_available():
            keep_freed_memory()
        if cfg.get('test_dataloader') is None:
            raise ValueError(f'{args.config} has no test_dataloader: there is nothing to evaluate')
        apply_arguments(cfg, args)
        check_checkpoints(cfg, 'CHECKPOINT', training=False)
        check_data(cfg, 'test_dataloader')
        runner = Runner.from_cfg(cfg)
        runner.register_hook(preparation)
        runner.register_hook(StartFromCheckpoint(complete=True))
        preparation.part = 'test_dataloader'
        runner.test_loop  # noqa: B018  builds the data set
        preparation.part = ''
        metrics = runner.test()
    if args.out_item == 'metrics' and runner.rank == 0:
        dump(metrics, args.out)


if __name__ == '__main__':
    main()
