"""What `tools/train.py` and `tools/test.py` share: the config, its overrides, distributed CPUs, readable errors."""

import argparse
import difflib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path

import torch
import torch.distributed
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.runner import Runner

import mmbeit

PACKAGE = Path(mmbeit.__file__).parent
TRACEBACK = 'MMBEIT_TRACEBACK'


def resource_root() -> Path:
    """The folder that holds `configs`, `tools` and `metafile.yml`: in a wheel `.mim`, else the root of the checkout."""
    packed = PACKAGE / '.mim'
    return packed if packed.exists() else PACKAGE.parent


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that both tools have."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (work_dirs/ and the name of the config)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='override entries of the config, such as optim_wrapper.optimizer.lr=1e-3',
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='how the processes of a distributed run are started',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


@contextmanager
def readable_errors() -> Iterator[None]:
    """While a run is prepared: what a wrong config, option, path or folder raises becomes one line and status 2."""
    try:
        yield
    except (
        OSError,
        LookupError,
        TypeError,
        ValueError,
        ImportError,
        AttributeError,
        AssertionError,
        RuntimeError,
        SyntaxError,
        NotImplementedError,
    ) as error:
        if os.environ.get(TRACEBACK):
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        if int(os.environ.get('RANK', 0)) == 0:
            line = ' '.join(str(text).split()) or type(error).__name__
            print(f'error: {line} (set {TRACEBACK}=1 to see where)', file=sys.stderr)
        raise SystemExit(2) from None


def find_config(name: str) -> Path:
    """Path of a config given by its path, or by its name among the configs of mmbeit.

    Raises:
        FileNotFoundError: There is none; the message names the closest ones.
    """
    if Path(name).is_file():
        return Path(name)
    paths = sorted((resource_root() / 'configs').rglob('*.py'))
    known = {path.stem: path for path in paths if '_base_' not in path.parts}
    stem = Path(name).name.removesuffix('.py')
    if stem in known:
        return known[stem]
    close = difflib.get_close_matches(stem, known, n=3, cutoff=0.5)
    raise FileNotFoundError(
        f'no config {name!r}: expected a file, or the name of a config of mmbeit'
        + (f'; the closest are {", ".join(close)}' if close else '')
    )


def load_config(args: argparse.Namespace) -> Config:
    """Read the config that the arguments name, with their overrides, launcher and work folder.

    Raises:
        FileNotFoundError: No such config.
        ValueError: An override names something that the config does not have.
    """
    path = find_config(args.config)
    cfg = Config.fromfile(path)
    for key in args.cfg_options:
        check_override(cfg, key)
    cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{path.stem}'
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    prepare_cpu_dist(cfg)
    return cfg


def check_override(cfg: Config, key: str) -> None:
    """Refuse an override that would silently add a new branch to the config."""
    node, done = cfg._cfg_dict, ''
    *parents, _ = parts = key.split('.')
    for depth, part in enumerate(parts):
        if isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict) and part in node:
            node = node[part]
        else:
            known = (
                list(node)
                if isinstance(node, dict)
                else [str(i) for i in range(len(node))]
                if isinstance(node, (list, tuple))
                else []
            )
            if depth == 0:
                known += [name for name in signature(Runner).parameters if name not in known]
            if part in known or (depth == len(parents) and depth > 0 and isinstance(node, dict)):
                return  # a new leaf: whoever takes it knows whether it is an argument
            close = difflib.get_close_matches(part, known, n=3)
            raise ValueError(
                f'unknown key {key!r}: {done or "the config"} has no {part!r}; '
                + (f'did you mean {", ".join(close)}?' if close else f'it has {", ".join(known)}')
            )
        done = f'{done}.{part}' if done else part


def prepare_cpu_dist(cfg: Config) -> None:
    """Let a distributed run start on CPUs: mmengine would select a CUDA device, and hand DDP its number."""
    if cfg.launcher == 'none' or torch.cuda.is_available():
        return
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    wrapper = cfg.get('model_wrapper_cfg') or ConfigDict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper


def check_checkpoints(cfg: Config) -> None:
    """Look for the local checkpoints that a config names before anything slow happens.

    Raises:
        FileNotFoundError: One is missing; the message says which key names it.
    """

    def search(node, where: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, dict):
            if node.get('type') == 'Pretrained':
                yield f'{where}.checkpoint', node.get('checkpoint', '')
            for key, value in node.items():
                yield from search(value, f'{where}.{key}')
        elif isinstance(node, (list, tuple)):
            for i, value in enumerate(node):
                yield from search(value, f'{where}.{i}')

    named = list(search(cfg.model, 'model'))
    if cfg.get('load_from'):
        named.append(('load_from', cfg.load_from))
    for key, path in named:
        if '://' not in path and not Path(path).expanduser().is_file():
            raise FileNotFoundError(f'no such checkpoint: {path or "(empty)"}, named by {key}')
