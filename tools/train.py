"""Train a model: `python tools/train.py CONFIG`."""

import argparse

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmbeit.apis.token_recipe import check_images, use_tokens
from mmbeit.engine.checks import check_checkpoints, check_data, latest_checkpoint
from mmbeit.engine.config import add_common_arguments, load_config
from mmbeit.engine.errors import readable_errors
from mmbeit.engine.loading import StartFromCheckpoint
from mmbeit.engine.memory import keep_freed_memory
from mmbeit.layers.kernels import set_attention_kernel


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='path of a config, or name of a config or model of mmbeit')
    add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a value from the latest one in the work folder',
    )
    parser.add_argument('--tokens', metavar='FOLDER', help='pretrain on what tools/extract_tokens.py wrote for CONFIG')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast, where the config has float32')
    parser.add_argument('--compile', action='store_true', help='compile the transformer blocks (torch.compile)')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    return parser.parse_args(argv)


def apply_arguments(cfg: Config, args: argparse.Namespace) -> None:
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if cfg.get('resume') and not cfg.get('load_from'):
        path = latest_checkpoint(cfg.work_dir)
        cfg.load_from = path and str(path)
    if args.amp and cfg.optim_wrapper.get('type', 'OptimWrapper') == 'OptimWrapper':
        cfg.optim_wrapper.type = 'mmbeit.AutocastOptimWrapper'
    if args.compile:
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='mmbeit.CompileBlocksHook')]
    if args.auto_scale_lr:
        if not cfg.get('auto_scale_lr'):
            raise ValueError(f'--auto-scale-lr: {args.config} has no auto_scale_lr.base_batch_size to scale from')
        cfg.auto_scale_lr.enable = True


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with readable_errors() as preparation:
        cfg = load_config(args)
        apply_arguments(cfg, args)
        set_attention_kernel(args.attention)
        if not torch.cuda.is_available():
            keep_freed_memory()
        tokens = use_tokens(cfg, args.tokens) if args.tokens else None
        check_checkpoints(cfg, '--resume' if args.resume else 'load_from')
        check_data(cfg, 'train_dataloader', 'val_dataloader')
        runner = Runner.from_cfg(cfg)
        runner.register_hook(preparation)
        runner.register_hook(StartFromCheckpoint(complete=False))
        preparation.part = 'train_dataloader'
        runner.train_loop  # noqa: B018  builds the data set
        if tokens:
            check_images(runner.train_dataloader.dataset, tokens)
        preparation.part = 'val_dataloader'
        runner.val_loop  # noqa: B018
        preparation.part = ''
        runner.train()


if __name__ == '__main__':
    main()
