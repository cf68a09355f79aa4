"""Keeping what libraries say from the output of a tool."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO

from mmengine.logging import MMLogger


@contextmanager
def quiet() -> Iterator[None]:
    """Where nothing below an error is printed: making a model and loading it says a lot, importing mmpretrain more."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
