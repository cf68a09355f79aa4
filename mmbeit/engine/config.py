"""The config of a run: found by name, read, and overridden from the command line."""

import argparse
import ast
import os
from collections.abc import Iterable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import mmengine
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mmbeit.engine.dist import prepare_cpu_dist
from mmbeit.engine.errors import suggest
from mmbeit.layers.kernels import AUTO, KERNELS
from mmbeit.resources import resource_root

# Keys at the top of a config that mmengine reads besides the arguments of `Runner`.
RUN_KEYS = (
    'activation_checkpointing',
    'compile',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'sync_bn',
)
# Variables of recipes that say where files are. An override of one of them reaches everything below the old place.
PLACES = ('data_root', 'nocaps_root', 'vg_root', 'tokenizer', 'answers')


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
    parser.add_argument(
        '--attention',
        choices=(AUTO, *KERNELS),
        default=AUTO,
        metavar='KERNEL',
        help=f'by which kernel attention with a position bias is computed where it can be: {", ".join(KERNELS)} '
        '(docs/performance.md)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


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
    places = {key: value for key, value in args.cfg_options.items() if key in PLACES and isinstance(cfg.get(key), str)}
    for name, place in places.items():
        old = cfg[name]
        for key, value in cfg._cfg_dict.to_dict().items():
            cfg[key] = move(value, old, str(place))
    options = {key: value for key, value in args.cfg_options.items() if key not in places}
    for key in options:
        check_override(cfg, key, options)
    cfg.merge_from_dict(options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{path.stem}'
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    prepare_cpu_dist(cfg)
    return cfg


def move(node: Any, old: str, new: str) -> Any:
    """A part of a config in which files and folders that were at or below `old` are at or below `new`."""
    if isinstance(node, dict):
        return {key: move(value, old, new) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(move(value, old, new) for value in node)
    if isinstance(node, str) and (node == old or node.startswith(f'{old}/')):
        return new + node.removeprefix(old)
    return node


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
