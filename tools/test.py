"""Evaluate a checkpoint: `python tools/test.py CONFIG CHECKPOINT`."""

import argparse

from mmengine.config import Config
from mmengine.runner import Runner

from mmbeit.engine.run import add_common_arguments, check_checkpoints, load_config, readable_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint')
    parser.add_argument('config', help='path of a config, or name of one of mmbeit')
    parser.add_argument('checkpoint', help='path or URL')
    add_common_arguments(parser)
    parser.add_argument('--out', help='file to write results to: .json for metrics, .pkl for predictions')
    parser.add_argument('--out-item', choices=('metrics', 'pred'), help='what to write; by default what --out ends in')
    return parser.parse_args(argv)


def apply_arguments(cfg: Config, args: argparse.Namespace) -> None:
    cfg.load_from = args.checkpoint
    if args.out:
        item = args.out_item or ('pred' if args.out.endswith(('.pkl', '.pickle')) else 'metrics')
        if item == 'pred' and not args.out.endswith(('.pkl', '.pickle')):
            raise ValueError(f'--out {args.out}: predictions are written as .pkl')
        args.out_item = item
        if item == 'pred':
            evaluator = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
            cfg.test_evaluator = [*evaluator, dict(type='DumpResults', out_file_path=args.out)]
    elif args.out_item:
        raise ValueError('--out-item says what to write, but there is no --out')


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with readable_errors():
        cfg = load_config(args)
        if cfg.get('test_dataloader') is None:
            raise ValueError(f'{args.config} has no test_dataloader: there is nothing to evaluate')
        apply_arguments(cfg, args)
        check_checkpoints(cfg)
        runner = Runner.from_cfg(cfg)
        runner.test_loop  # noqa: B018  builds the data set
    metrics = runner.test()
    if args.out and args.out_item == 'metrics' and runner.rank == 0:
        from mmengine.fileio import dump

        dump(metrics, args.out)


if __name__ == '__main__':
    main()
