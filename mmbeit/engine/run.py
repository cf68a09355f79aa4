"""What `tools/train.py` and `tools/test.py` share: the config, its overrides, distributed CPUs, readable errors."""

import argparse
import ast
import difflib
import os
import re
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import mmengine.registry
import torch
import torch.distributed
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.hooks import Hook
from mmengine.runner import Runner

import mmbeit
from mmbeit.checkpoint.load import CheckpointError

PACKAGE = Path(mmbeit.__file__).parent
TRACEBACK = 'MMBEIT_TRACEBACK'
# Keys at the top of a config that mmengine reads besides the arguments of `Runner`.
RUN_KEYS = (
    'activation_checkpointing',
    'compile',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'sync_bn',
)


def resource_root() -> Path:
    """The folder that holds `configs`, `tools` and `metafile.yml`: in a wheel `.mim`, else the root of the checkout."""
    packed = PACKAGE / '.mim'
    return packed if packed.exists() else PACKAGE.parent


class Override(DictAction):
    """mmengine's, with argparse's own message where an option is no KEY=VALUE."""

    def __call__(self, parser: argparse.ArgumentParser, namespace, values, option_string=None) -> None:
        for value in values:
            if '=' not in value:
                parser.error(f'{option_string} {value}: expected KEY=VALUE')
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, ValueError) as error:
            parser.error(f'{option_string}: {error}')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that both tools have."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (work_dirs/ and the name of the config)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Override,
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


class Preparation(Hook):
    """Knows whether a run has begun. Register it, so that :func:`readable_errors` can tell a wrong input from a bug."""

    priority = 'LOWEST'
    part = ''  # of the config, which is being used
    over = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume and not {'meta', 'optimizer', 'message_hub'} <= checkpoint.keys():
            raise CheckpointError(
                f'cannot resume from {runner._load_from}: it holds weights only; to start from them, set load_from'
            )

    def before_train(self, runner: Runner) -> None:
        self.over = True

    def before_test(self, runner: Runner) -> None:
        self.over = True


@contextmanager
def readable_errors() -> Iterator[Preparation]:
    """Until the run begins, what a wrong config, option, path or folder raises becomes one line and status 2.

    After that, only an unreadable checkpoint does; anything else keeps its traceback.
    """
    preparation = Preparation()
    try:
        yield preparation
    except Exception as error:
        if os.environ.get(TRACEBACK) or (preparation.over and not isinstance(error, CheckpointError)):
            raise
        if int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', 0))):
            time.sleep(5)  # the first process says the same, and the launcher then stops this one
        where = f'{preparation.part}: ' if preparation.part else ''
        print(f'error: {where}{explain(error)} (set {TRACEBACK}=1 to see where)', file=sys.stderr, flush=True)
        raise SystemExit(2) from None


def explain(error: Exception) -> str:
    """What went wrong, on one line, with the names that were probably meant."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f'{error.strerror[0].lower()}{error.strerror[1:]}: {error.filename}'
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = ' '.join(str(text).split()) or type(error).__name__
    if unknown := re.match(r'(\S+) is not in the (.+?) registry', text):
        name, registry = unknown.groups()
        return f'unknown type {name!r}, not in the registry {registry}' + suggest(
            name, registered_names(registry.partition('::')[2])
        )
    if unknown := re.fullmatch(r"'?ConfigDict'? object has no attribute '(\w+)'", text):
        return f'the config has no {unknown[1]!r}'
    return text


def suggest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of a message: names close to `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=cutoff)
    return f'; did you mean {", ".join(close)}?' if close else ''


def registered_names(registry: str) -> list[str]:
    """Every name that a config may use for that registry of mmengine: its own, and `scope.Name` of its children."""
    roots = {id(r): r for r in vars(mmengine.registry).values() if isinstance(r, mmengine.registry.Registry)}.values()
    names = []
    for root in (root for root in roots if root.name == registry):
        names += root.module_dict
        for scope, child in root.children.items():
            child.import_from_location()
            names += [f'{scope}.{name}' for name in child.module_dict]
            if scope != 'mmbeit':  # the default scopes of recipes, whose names are written bare
                names += child.module_dict
    return names


def model_configs() -> dict[str, Path]:
    """Paths of the configs of mmbeit by their names, and by the names of the models in `metafile.yml`."""
    root = resource_root()
    known = {path.stem: path for path in sorted((root / 'configs').rglob('*.py')) if '_base_' not in path.parts}
    models = mmengine.load(root / 'metafile.yml').get('Models') or []
    return {model['Name']: root / model['Config'] for model in models if 'Config' in model} | known


def find_config(name: str) -> Path:
    """Path of a config given by its path, by its name among the configs of mmbeit, or by the name of a model.

    Raises:
        FileNotFoundError: There is none; the message names the closest ones.
    """
    if Path(name).is_file():
        return Path(name)
    known = model_configs()
    stem = Path(name).name.removesuffix('.py')
    if stem in known:
        return known[stem]
    raise FileNotFoundError(
        f'no config {name!r}: expected a file, or the name of a config or model of mmbeit' + suggest(stem, known, 0.5)
    )


def load_config(args: argparse.Namespace) -> Config:
    """Read the config that the arguments name, with their overrides, launcher and work folder.

    Raises:
        FileNotFoundError: No such config.
        ValueError: An override names something that the config does not have.
    """
    path = find_config(args.config)
    cfg = read_config(path)
    if 'model' not in cfg:
        raise ValueError(f'{path} has no model: expected the config of a run')
    for key in args.cfg_options:
        check_override(cfg, key, args.cfg_options)
    cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{path.stem}'
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    prepare_cpu_dist(cfg)
    return cfg


def read_config(path: Path) -> Config:
    """Like `Config.fromfile`, which does not say which file has the syntax error.

    Raises:
        ValueError: The config, or one of its bases, is no Python.
    """
    try:
        return Config.fromfile(path)
    except SyntaxError as error:
        try:
            ast.parse(path.read_text())
            where = f'a base of {path}'
        except SyntaxError:
            where = path
        raise ValueError(f'syntax error in line {error.lineno} of {where}: {error.msg}') from error


def check_override(cfg: Config, key: str, options: Iterable[str] = ()) -> None:
    """Refuse an override that would silently add a branch to the config, or change what nothing reads any more.

    A new leaf passes: whoever takes it knows whether it is an argument. So does a new branch with a `type` among the
    other `options`.
    """
    node, done = cfg._cfg_dict, ''
    parts = key.split('.')
    if parts[0] not in (*signature(Runner).parameters, *RUN_KEYS):
        if parts[0] in node and (copies := list(find_copies(cfg._cfg_dict, parts[0]))):
            raise ValueError(
                f'overriding {key!r} has no effect, for the config has copied it: override {", ".join(copies[:3])}'
            )
        if parts[0] not in node:
            known = {*node, *signature(Runner).parameters}
            raise ValueError(
                f'unknown key {key!r}: the config has no {parts[0]!r}'
                + (suggest(parts[0], known) or f'; it has {", ".join(node)}')
            )
    elif parts[0] not in node:
        return
    for part in parts:
        if isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict) and part in node:
            node = node[part]
        elif node is None or (isinstance(node, dict) and (part == parts[-1] or f'{done}.{part}.type' in options)):
            return
        else:
            known = list(node) if isinstance(node, dict) else []
            if isinstance(node, (list, tuple)):
                known = [str(i) for i in range(len(node))]
            has = f'; it has {", ".join(known)}' if known else f'; it is {node!r}'
            raise ValueError(f'unknown key {key!r}: {done} has no {part!r}' + (suggest(part, known) or has))
        done = f'{done}.{part}' if done else part


def find_copies(cfg: dict, name: str) -> Iterator[str]:
    """Where a config of mmengine has copied the value of one of its variables to, such as `train_cfg.max_epochs`."""
    value = cfg[name]

    def search(node: Any, where: str) -> Iterator[str]:
        pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
        for key, child in pairs:
            # A number may be equal by chance; what has the same name is what is meant.
            if key == name or (isinstance(value, (dict, list, tuple)) and child == value):
                yield f'{where}.{key}'
            yield from search(child, f'{where}.{key}')

    for key, child in cfg.items():
        if key in (*signature(Runner).parameters, *RUN_KEYS):
            if isinstance(value, (dict, list, tuple)) and child == value:
                yield key
            yield from search(child, key)


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


def search_dicts(node: Any, where: str) -> Iterator[tuple[str, dict]]:
    """Every dict in a part of a config, with its dotted name."""
    if isinstance(node, dict):
        yield where, node
        for key, value in node.items():
            yield from search_dicts(value, f'{where}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from search_dicts(value, f'{where}.{i}')


def check_checkpoints(cfg: Config, source: str = 'load_from', training: bool = True) -> None:
    """Look for the local checkpoints that a config names before anything slow happens.

    Args:
        cfg: The config.
        source: Where the user has written `load_from`.
        training: Whether weights are initialised. For evaluation only frozen parts read a file of their own.

    Raises:
        FileNotFoundError: One is missing; the message says which key names it.
    """
    named = [
        (f'{where}.checkpoint', node.get('checkpoint') or '')
        for where, node in search_dicts(cfg.model, 'model')
        if node.get('type') == 'Pretrained' and (training or 'target_generator' in where)
    ]
    if cfg.get('load_from'):
        named.append((source, cfg.load_from))
    for key, name in named:
        path = Path(name).expanduser()
        if '://' not in name and not path.is_file() and not (name and path.is_dir()):
            known = [str(p) for p in sorted(path.parent.glob('*.pth'))] if name and path.parent.is_dir() else []
            raise FileNotFoundError(
                f'no such checkpoint: {name or "(empty)"}, named by {key}' + suggest(str(path), known, 0.5)
            )


def check_data(cfg: Config, *loaders: str) -> None:
    """Look for the folders and lists of the data sets of these dataloaders, as far as they are local.

    Raises:
        FileNotFoundError: One is missing, or is an empty folder; the message says which data set names it.
    """
    for loader in loaders:
        for where, node in search_dicts(cfg.get(loader), loader):
            root = node.get('data_root') or ''
            if 'data_root' not in node or '://' in root:
                continue
            prefix = node.get('data_prefix') or (node.get('split') if node.get('type') == 'ImageNet' else '') or ''
            for part in prefix.values() if isinstance(prefix, dict) else [prefix]:
                folder = Path(root, part or '')
                if '://' not in str(part) and not (folder.is_dir() and any(folder.iterdir())):
                    what = 'empty' if folder.is_dir() else 'no such'
                    raise FileNotFoundError(f'{what} folder: {folder}, named by {where}: expected the data there')
            lines = node.get('ann_file')
            if lines and isinstance(lines, str) and '://' not in lines and not Path(root, lines).is_file():
                raise FileNotFoundError(f'no such file: {Path(root, lines)}, named by {where}.ann_file')


def latest_checkpoint(work_dir: str | os.PathLike) -> Path | None:
    """The checkpoint to go on from, or None where there is none yet.

    It is the one that mmengine noted last, unless it is gone or was cut off while it was written (a full disk, a kill
    at the wrong moment); then it is the latest complete one of the folder.

    Raises:
        CheckpointError: There are checkpoints, but none is complete.
    """
    folder = Path(work_dir)
    saved = sorted(
        (path for path in folder.glob('*.pth') if re.fullmatch(r'(epoch|iter)_\d+', path.stem)),
        key=lambda path: int(path.stem.rpartition('_')[2]),
        reverse=True,
    )
    note = folder / 'last_checkpoint'
    noted = Path(note.read_text().strip()) if note.is_file() else None
    candidates = [noted, *saved] if noted and noted.is_file() else saved
    for path in candidates:
        if zipfile.is_zipfile(path):  # the directory of a zip file is written last
            if path != noted:
                print(f'going on from {path}: no later checkpoint of {folder} is complete', file=sys.stderr)
            return path
    if candidates:
        raise CheckpointError(f'no checkpoint of {folder} is complete: {", ".join(p.name for p in candidates)}')
    return None
