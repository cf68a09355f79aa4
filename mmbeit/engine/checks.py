"""A look at the files that a run needs before anything slow happens."""

import os
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmbeit.checkpoint.load import CheckpointError
from mmbeit.engine.errors import suggest


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
        if node.get('type') == 'Pretrained' and (training or 'target_generator' in where or '.teacher' in where)
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
            for key in ('question_file', 'ann_file'):
                lines = node.get(key)
                if lines and isinstance(lines, str) and '://' not in lines and not Path(root, lines).is_file():
                    raise FileNotFoundError(f'no such file: {Path(root, lines)}, named by {where}.{key}')


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
