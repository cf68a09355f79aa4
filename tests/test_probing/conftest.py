"""Folders of random images."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_images() -> Callable[..., Path]:
    """Write images of 40 pixels in three classes, some of which are broken; give their folder."""

    def write(folder: Path, count: int, broken: Sequence[int] = (), seed: int = 0) -> Path:
        draw = np.random.default_rng(seed)
        for i in range(count):
            path = folder / 'abc'[i % 3] / f'{i:03}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
            if i in broken:
                path.write_bytes(b'broken')
        return folder

    return write
