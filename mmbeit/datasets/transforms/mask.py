"""Blockwise masking (BEiT, algorithm 1; unilm:beit/masking_generator.py, beit2/masking_generator.py)."""

import math
import random

import numpy as np
from mmcv.transforms import BaseTransform

from mmbeit.layers.position import Grid
from mmbeit.registry import TRANSFORMS

NUM_TRIES = 10


def blockwise_mask(
    grid: Grid, num_masked: int, min_block: int = 16, max_block: int | None = None, min_aspect: float = 0.3
) -> np.ndarray:
    """Mask blocks until `num_masked` patches are masked, or ten blocks in a row did not fit: BEiT v1.

    Draws from Python's `random`, in the order of the official code. Every placement of a block inside the grid is
    possible, the last row and column included.

    Args:
        grid: Patches (h, w).
        num_masked: Masked patches aimed at; often a few less are masked (74.5 of 75 on average on 14 x 14).
        min_block: Smallest area of a block that is drawn. A bound above what is left still draws, as officially.
        max_block: Most patches that one block may add, or None.
        min_aspect: Smallest ratio of height to width; the largest is its inverse.

    Returns:
        (h, w) bool, True = masked.
    """
    height, width = grid
    rows = [0] * height  # a bit for each patch: NumPy would take longer for as few
    log_aspect = math.log(min_aspect), math.log(1 / min_aspect)
    count = 0
    while count < num_masked:
        budget = min(num_masked - count, max_block or num_masked)
        for _ in range(NUM_TRIES):
            area = random.uniform(min_block, budget)
            aspect = math.exp(random.uniform(*log_aspect))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h >= height or w >= width:
                continue
            top, left = random.randint(0, height - h), random.randint(0, width - w)
            block = ((1 << w) - 1) << left
            added = h * w - sum((row & block).bit_count() for row in rows[top : top + h])
            if 0 < added <= budget:
                rows[top : top + h] = [row | block for row in rows[top : top + h]]
                count += added
                break
        else:
            break
    return np.array([[row >> x & 1 for x in range(width)] for row in rows], dtype=bool)


def exact_count(mask: np.ndarray, num_masked: int) -> np.ndarray:
    """Mask or unmask random patches until exactly `num_masked` are masked: BEiT v2's last step. Draws from NumPy."""
    mask = mask.copy()
    flat, count = mask.reshape(-1), int(mask.sum())
    if count != num_masked:
        wrong = np.flatnonzero(flat == (count > num_masked))
        flat[np.random.choice(wrong, abs(num_masked - count), replace=False)] = count < num_masked
    return mask


@TRANSFORMS.register_module()
class BlockwiseMask(BaseTransform):
    """Draw the mask of an image.

    Adds `mask`: (h, w) uint8, 1 = masked.

    Args:
        grid: Patches of the view, one number or (h, w).
        num_masked: Patches to mask, 75 of 14 x 14 in the papers.
        exact: Whether to mask exactly `num_masked`, as v2 does, or up to that many, as v1 does.
        min_block, max_block, min_aspect: See :func:`blockwise_mask`.

    Raises:
        ValueError: `num_masked` does not fit the grid.
    """

    def __init__(
        self,
        grid: int | Grid,
        num_masked: int,
        exact: bool = False,
        min_block: int = 16,
        max_block: int | None = None,
        min_aspect: float = 0.3,
    ):
        self.grid = (grid, grid) if isinstance(grid, int) else tuple(grid)
        if not 0 < num_masked <= self.grid[0] * self.grid[1]:
            raise ValueError(f'num_masked ({num_masked}) is not between 1 and the patches of a grid of {self.grid}')
        self.num_masked = num_masked
        self.exact = exact
        self.blocks = dict(min_block=min_block, max_block=max_block, min_aspect=min_aspect)

    def transform(self, results: dict) -> dict:
        mask = blockwise_mask(self.grid, self.num_masked, **self.blocks)
        if self.exact:
            mask = exact_count(mask, self.num_masked)
        results['mask'] = mask.astype(np.uint8)
        return results
