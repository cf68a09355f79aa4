"""Write the visual tokens of a folder of images: `python tools/extract_tokens.py CONFIG OUT --images FOLDER`.

CONFIG is a pretraining recipe; its tokenizer is what is run. With `--images`, or for the images of the recipe without
it, the tokens of the centre of each image are written; with `--views 16`, those of the sixteen random views that the
recipe shows in its first epochs, to pretrain on with `tools/train.py CONFIG --tokens OUT`. A run that was stopped goes
on with the same command. docs/tokens.md says more.
"""

import argparse
import os

import torch
from mmengine.config import Config, DictAction
from rich.filesize import decimal

from mmbeit.apis.extraction import TokenExtractor, summarize
from mmbeit.engine.checks import check_checkpoints, check_data
from mmbeit.engine.config import check_override, find_config, read_config
from mmbeit.engine.errors import readable_errors
from mmbeit.engine.memory import keep_freed_memory

# Where launchers say which process this is, and how many there are.
LAUNCHERS = {
    'none': None,
    'pytorch': ('RANK', 'WORLD_SIZE'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Write the visual tokens of a folder of images')
    parser.add_argument('config', help='path or name of a pretraining config')
    parser.add_argument('out', help='folder to write to')
    parser.add_argument('--images', help="folder of images, searched with its subfolders (the recipe's data set)")
    parser.add_argument('--views', type=int, help='random views of each image, as in training (one, of the centre)')
    parser.add_argument('--size', type=int, help="side of the centre in pixels (the recipe's target view)")
    parser.add_argument('--batch-size', type=int, default=64, help='views that the tokenizer takes at once (64)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='how several processes are started')
    args = parser.parse_args(argv)
    if args.views and args.size:
        parser.error('--size is of the centre: the recipe says the size of random views')
    return args


def load_recipe(args: argparse.Namespace) -> Config:
    cfg = read_config(find_config(args.config))
    for key in args.cfg_options:
        check_override(cfg, key, args.cfg_options)
    cfg.merge_from_dict(args.cfg_options)
    if 'dataset' not in (cfg.get('train_dataloader') or {}) or 'model' not in cfg:
        raise ValueError(f'{args.config} has no model and train_dataloader: expected a pretraining recipe')
    if args.images:
        cfg.train_dataloader.dataset.update(data_root=args.images, data_prefix='', ann_file='')
    check_checkpoints(cfg, training=False)
    check_data(cfg, 'train_dataloader')
    return cfg


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    names = LAUNCHERS[args.launcher]
    part, num_parts = (int(os.environ[name]) for name in names) if names else (0, 1)
    with readable_errors() as preparation:
        device = f'cuda:{part % torch.cuda.device_count()}' if torch.cuda.is_available() else 'cpu'
        if device == 'cpu':
            keep_freed_memory()
        extractor = TokenExtractor(load_recipe(args), args.out, args.views, args.size, args.batch_size, device)
        preparation.over = True
        extractor.run(part, num_parts)
    tokens = extractor.tokens
    if missing := tokens.missing():
        print(f'{args.out}: process {part} is done; {len(missing)} of {tokens.num_shards} files are still to come')
        return
    statistics = summarize(tokens)
    h, w = tokens.contents.grid
    print(
        f'{args.out}: {h} x {w} tokens of {tokens.contents.views} views of {statistics["images"]:,} images, '
        f'{decimal(statistics["bytes"])}'
    )
    if statistics['unreadable']:
        print(f'images that could not be read: {statistics["unreadable"]:,}, see {tokens.folder / "unreadable.txt"}')
    print(
        f'{statistics["usage"]:.1f} % of {tokens.contents.num_codes} codes in use, {statistics["dead_codes"]} are not; '
        f'perplexity {statistics["perplexity"]:.1f}: {tokens.folder / "codebook.png"}'
    )


if __name__ == '__main__':
    main()
