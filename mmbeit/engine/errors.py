"""From an exception to one line that says what was wrong and what was probably meant."""

import difflib
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import mmengine.registry
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmbeit.checkpoint.load import CheckpointError

TRACEBACK = 'MMBEIT_TRACEBACK'


class StoppedRunError(RuntimeError):
    """A run that is not worth going on with; the message is one line that says why, and what to change."""


class Preparation(Hook):
    """Knows whether a run has begun. Register it, so that :func:`readable_errors` can tell a wrong input from a bug."""

    priority = 'LOWEST'
    part = ''  # of the config, which is being used
    over = False

    def before_train(self, runner: Runner) -> None:
        self.over = True

    def before_test(self, runner: Runner) -> None:
        self.over = True


@contextmanager
def readable_errors() -> Iterator[Preparation]:
    """Until the run begins, what a wrong config, option, path or folder raises becomes one line and status 2.

    After that, only an unreadable checkpoint and :class:`StoppedRunError` do; anything else keeps its traceback.
    """
    preparation = Preparation()
    try:
        yield preparation
    except Exception as error:
        expected = isinstance(error, (CheckpointError, StoppedRunError)) or not preparation.over
        if os.environ.get(TRACEBACK) or not expected:
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
