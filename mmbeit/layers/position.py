"""Where a patch is: the relative position bias, the absolute embedding, and both at another image size.

A grid is (h, w), patches per side. Token 0 is the class token; patches follow row by row.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbeit.layers import kernels

Grid = tuple[int, int]
NUM_CLASS_ROWS = 3  # last rows of a table: class token to patch, patch to class token, class token to itself


def num_table_rows(grid: Grid) -> int:
    """Rows of the bias table of a grid: one per displacement between two patches, and three for the class token."""
    h, w = grid
    return (2 * h - 1) * (2 * w - 1) + NUM_CLASS_ROWS


def cpu_constant(func):
    """Cache a function whose result is tensors on the CPU, whatever device or grad mode the caller is in."""

    @lru_cache(maxsize=64)
    def build(*args):
        # An inference tensor in the cache would break the next training step; a meta tensor holds nothing.
        with torch.inference_mode(False), torch.no_grad(), torch.device('cpu'):
            return func(*args)

    build.__doc__ = func.__doc__
    build.__name__ = func.__name__
    return build


@cpu_constant
def patch_places(grid: Grid) -> tuple[Tensor, Tensor]:
    """Numbers (h*w,) long of the patches as queries, and as keys: their difference is the row of the bias table."""
    h, w = grid
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')
    key = (y * (2 * w - 1) + x).flatten()
    return key + (h - 1) * (2 * w - 1) + w - 1, key


@cpu_constant
def relative_index(grid: Grid) -> Tensor:
    """Row of the bias table for every (query, key): (1 + h*w, 1 + h*w) int64 (unilm:beit/modeling_finetune.py)."""
    query, key = patch_places(grid)
    rows = num_table_rows(grid)
    index = torch.empty(1 + len(query), 1 + len(key), dtype=torch.long)
    index[1:, 1:] = query[:, None] - key
    index[0, :] = rows - 3
    index[:, 0] = rows - 2
    index[0, 0] = rows - 1
    return index


def geometric_coordinates(src: int, dst: int) -> list[float]:
    """Where the `2 * src - 1` displacements of the source lie on the axis of a target with `2 * dst - 1`.

    The steps between neighbours grow by a factor q, so that the nearest neighbour stays exactly where it was and the
    outermost one lands on the border of the target. q is found by bisection on [1.01, 1.5], as the official loader
    does, so shrinking uses q = 1.01 (unilm:beit/run_class_finetuning.py).
    """
    steps, reach = src - 1, dst - 1
    left, right = 1.01, 1.5
    q = left
    while right - left > 1e-6:
        q = (left + right) / 2
        if (1 - q**steps) / (1 - q) > reach:
            right = q
        else:
            left = q
    side = [0.0]
    for k in range(steps):
        side.append(side[-1] + q**k)
    return [-d for d in reversed(side[1:])] + side


def spline_matrix(x: Tensor, t: Tensor) -> Tensor:
    """Matrix (len(t), len(x)) that evaluates, at `t`, the cubic not-a-knot spline through values given at knots `x`.

    Points outside of the knots take the border's value. Fewer than four knots give the polynomial through them.
    """
    n = len(x)
    t = t.clamp(x[0], x[-1])
    if n < 4:
        return torch.stack(
            [math.prod((t - x[j]) / (x[i] - x[j]) for j in range(n) if j != i) * torch.ones_like(t) for i in range(n)],
            dim=1,
        )
    step = x.diff()
    slope = torch.zeros(n - 1, n, dtype=x.dtype)  # of each chord, as a linear function of the values
    slope[range(n - 1), range(n - 1)] = -1 / step
    slope[range(n - 1), range(1, n)] = 1 / step
    # Derivatives at the knots: lhs @ derivatives = rhs @ values. Inside, the second derivative is continuous.
    lhs, rhs = torch.zeros(n, n, dtype=x.dtype), torch.zeros(n, n, dtype=x.dtype)
    for i in range(1, n - 1):
        lhs[i, i - 1 : i + 2] = torch.stack([step[i], 2 * (step[i - 1] + step[i]), step[i - 1]])
        rhs[i] = 3 * (step[i] * slope[i - 1] + step[i - 1] * slope[i])
    # At the second and the last but one knot the third derivative is continuous, too ("not a knot").
    for end, near, a, b in ((0, 1, 0, 1), (n - 1, n - 2, n - 2, n - 3)):
        both = step[a] + step[b]
        lhs[end, end], lhs[end, near] = step[b], both
        rhs[end] = ((step[a] + 2 * both) * step[b] * slope[a] + step[a] ** 2 * slope[b]) / both
    derivative = torch.linalg.solve(lhs, rhs)
    # Hermite form on the interval of each target point.
    i = torch.searchsorted(x, t, right=True).clamp(1, n - 1) - 1
    h = step[i]
    u = (t - x[i]) / h
    value = torch.eye(n, dtype=x.dtype)
    u, h = u[:, None], h[:, None]
    return (
        (1 + 2 * u) * (1 - u) ** 2 * value[i]
        + u**2 * (3 - 2 * u) * value[i + 1]
        + h * u * (1 - u) ** 2 * derivative[i]
        + h * u**2 * (u - 1) * derivative[i + 1]
    )


@cpu_constant
def resize_matrix(src: int, dst: int) -> Tensor:
    """Matrix (2 * dst - 1, 2 * src - 1), float64, that takes a table along one axis from `src` to `dst` patches."""
    if src == dst:
        return torch.eye(2 * src - 1, dtype=torch.float64)
    x = torch.tensor(geometric_coordinates(src, dst), dtype=torch.float64)
    return spline_matrix(x, torch.arange(1 - dst, dst, dtype=torch.float64))


def resize_rel_pos_table(table: Tensor, src: Grid, dst: Grid) -> Tensor:
    """Relative position table for another grid, by the official geometric scheme. Differentiable; each axis by itself.

    Args:
        table: (rows of `src`, H).
        src: Grid of the table.
        dst: Grid wanted.

    Returns:
        (rows of `dst`, H), of the dtype of `table`.

    Raises:
        ValueError: The table does not have the rows of `src`.
    """
    if table.shape[0] != num_table_rows(src):
        raise ValueError(f'a table of grid {src} has {num_table_rows(src)} rows, this one has {table.shape[0]}')
    if src == dst:
        return table
    (h, w), heads = src, table.shape[1]
    patches = table[:-NUM_CLASS_ROWS].double().view(2 * h - 1, 2 * w - 1, heads)
    along_h, along_w = (resize_matrix(s, d).to(table.device) for s, d in zip(src, dst, strict=True))
    patches = torch.einsum('yh,xw,hwn->yxn', along_h, along_w, patches).reshape(-1, heads)
    return torch.cat([patches.to(table.dtype), table[-NUM_CLASS_ROWS:]])


def resize_abs_pos_embed(embed: Tensor, src: Grid, dst: Grid) -> Tensor:
    """Absolute position embedding (1, 1 + h*w, D) for another grid: bicubic; the class token's entry is kept."""
    if src == dst:
        return embed
    cls, patches = embed[:, :1], embed[:, 1:]
    patches = patches.transpose(1, 2).unflatten(2, src)
    patches = F.interpolate(patches.float(), size=dst, mode='bicubic', align_corners=False).to(embed.dtype)
    return torch.cat([cls, patches.flatten(2).transpose(1, 2)], dim=1)


def square_grid(num_patches: int, what: str) -> Grid:
    """The square grid with that many patches.

    Raises:
        ValueError: There is none; names `what` and the number.
    """
    side = math.isqrt(num_patches)
    if side * side != num_patches:
        raise ValueError(f'{what} holds {num_patches} patches, which is not a square grid; its grid is not recorded')
    return side, side


def grid_of_table(num_rows: int) -> Grid:
    """The square grid of a relative position table.

    Raises:
        ValueError: No square grid has a table with that many rows.
    """
    side = math.isqrt(max(num_rows - NUM_CLASS_ROWS, 0))
    if side % 2 == 0 or side * side != num_rows - NUM_CLASS_ROWS:
        raise ValueError(f'a position table of {num_rows} rows is of no square grid, and its grid is not recorded')
    return (side + 1) // 2, (side + 1) // 2


class BiasRows:
    """The bias of :class:`RelativePositionBias`, made a few rows at a time where all of them would be too large.

    Between patches it depends on the displacement alone. For the queries of one column of the grid, the part of the
    table that their keys' columns meet is a strip of w numbers per row, and what each of these queries has is a window
    of h rows of it, each one step further. So nothing of the size of all pairs is needed, no index either, and what is
    copied lies in one piece.

    Args:
        table: (rows of `grid`, H).
        grid: Patches per side (h, w).
    """

    def __init__(self, table: Tensor, grid: Grid):
        (h, w), heads = grid, table.shape[1]
        self.grid = grid
        self.num_tokens = 1 + h * w
        self.bytes_per_row = heads * self.num_tokens * table.element_size()
        self.from_cls, self.to_cls, self.cls_itself = table[-NUM_CLASS_ROWS:].unbind()  # (H,) each
        # Displacement is query minus key: with both axes turned round, keys run forwards.
        flipped = table[:-NUM_CLASS_ROWS].T.view(heads, 2 * h - 1, 2 * w - 1).flip(1, 2)
        self.strips = flipped.unfold(2, w, 1).transpose(1, 2)  # (H, w, 2 * h - 1, w), of the columns from the last

    def chunks(self, max_bytes: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows, some at a time.

        Args:
            max_bytes: How large these are, about; they are those of one column of the grid at least.

        Yields:
            Which queries (T,) long, and their rows (H, T, 1 + h*w), which are overwritten by the next ones.
        """
        h, w = self.grid
        step = max(1, min(w, max_bytes // (h * self.bytes_per_row)))
        buffer = self.strips.new_empty(len(self.cls_itself), 1 + step * h, self.num_tokens)
        # The windows are those of the last query first, in either axis; that of the class token follows on all.
        patches = torch.arange(h * w, 0, -1, device=buffer.device).view(h, w)
        for start in range(0, w, step):
            stop = min(start + step, w)
            queries = patches[:, start:stop].T.flatten()
            count = len(queries)
            out = buffer[:, : count + (stop == w)]
            windows = self.strips[:, start:stop].contiguous().flatten(2).unfold(2, h * w, w)  # (H, columns, h, h * w)
            out[:, :count, 1:].unflatten(1, (-1, h)).copy_(windows)
            out[:, :count, 0] = self.to_cls[:, None]
            if stop == w:
                out[:, count, 0], out[:, count, 1:] = self.cls_itself, self.from_cls[:, None]
                queries = F.pad(queries, (0, 1))
            yield queries, out


class BiasTable:
    """The bias of :class:`RelativePositionBias`, looked up for each pair of tokens where it is needed.

    Args:
        table: (rows of `grid`, H).
        grid: Patches per side (h, w).
    """

    def __init__(self, table: Tensor, grid: Grid):
        # Rows of the class token first: where they are does not depend on the grid, which would be compiled for.
        self.table = torch.cat([table[-NUM_CLASS_ROWS:], table[:-NUM_CLASS_ROWS]]).T.contiguous()  # (H, rows)
        query, key = (F.pad(places, (1, 0)).to(table.device) for places in patch_places(grid))
        self.query, self.key = query + NUM_CLASS_ROWS, key  # (1 + h*w,) each; of the class token unused

    def score_mod(self) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
        """What adds the bias to a logit of FlexAttention."""
        table, query, key = self.table, self.query, self.key

        def add(logit: Tensor, sample: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            of_cls_token = torch.where(q == 0, torch.where(k == 0, 2, 0), 1)
            return logit + table[head, torch.where((q == 0) | (k == 0), of_cls_token, query[q] - key[k])]

        return add


Bias = Tensor | BiasRows | BiasTable  # what is added to the logits of attention, in one of its forms


class RelativePositionBias(nn.Module):
    """Learned bias for every pair of tokens, by their displacement (unilm:beit/modeling_finetune.py).

    Holds one table for its own grid and answers for any other by resizing it. A checkpoint of another grid is resized
    when it is loaded; the buffer `grid` tells which it was (absent in other projects' files: square then).

    Args:
        grid: Patches per side (h, w) that the table is for.
        num_heads: Number of attention heads H.
    """

    def __init__(self, grid: Grid, num_heads: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(num_table_rows(grid), num_heads))
        self.register_buffer('grid', torch.tensor(grid))
        self._grid = tuple(grid)  # reading a buffer would wait for the device
        self._cache: dict[tuple, Tensor] = {}

    def forward(self, grid: Grid | None = None, dtype: torch.dtype | None = None) -> Bias:
        """The bias of a grid (the own one by default): (H, 1 + h*w, 1 + h*w), of `dtype` (the table's by default).

        With gradients it is of the table's dtype in any case, in which those of all blocks and pairs are then summed.
        Where no gradient can reach the table, it comes in the form that its kernel wants
        (:func:`mmbeit.layers.kernels.set_attention_kernel`): a large one as :class:`BiasRows`, so that memory grows
        with the tokens and not with their pairs. Whole ones, of all sizes together at most `MAX_KEPT` bytes, are kept
        until the table changes. What autograd does not see (an average of weights swapped in through `.data`) has to be
        followed by `eval()`, as mmengine's loops do.
        """
        grid = self._grid if grid is None else tuple(grid)
        dtype = dtype or self.table.dtype
        if (torch.is_grad_enabled() and self.table.requires_grad) or torch.compiler.is_compiling():
            return self._gather(grid, self.table.dtype)
        num_tokens, heads = 1 + grid[0] * grid[1], self.table.shape[1]
        kernel = kernels.kernel_that_does_not(heads * num_tokens**2 * dtype.itemsize)
        if kernel != 'whole':
            form = BiasTable if kernel == 'flex' else BiasRows
            with torch.no_grad():
                return form(resize_rel_pos_table(self.table, self._grid, grid).to(dtype), grid)
        version = 0 if self.table.is_inference() else self.table._version
        key = (version, grid, dtype)
        if key not in self._cache:
            kept = {k: v for k, v in self._cache.items() if k[0] == version}
            with torch.inference_mode(False), torch.no_grad():  # an inference tensor would break a later training step
                kept[key] = self._gather(grid, dtype)
            while len(kept) > 1 and sum(bias.nbytes for bias in kept.values()) > kernels.MAX_KEPT:
                kept.pop(next(iter(kept)))  # the oldest one
            self._cache = kept
        return self._cache[key]

    def _gather(self, grid: Grid, dtype: torch.dtype) -> Tensor:
        table = resize_rel_pos_table(self.table, self._grid, grid).to(dtype)
        index = relative_index(grid).to(table.device)
        # Along the second axis, for the gradient: that of `table[index]` takes up to thirty times as long on a CPU.
        return table.T.contiguous().index_select(1, index.flatten()).view(-1, *index.shape)

    def train(self, mode: bool = True) -> 'RelativePositionBias':
        self._cache = {}
        return super().train(mode)

    def _apply(self, *args, **kwargs) -> 'RelativePositionBias':
        self._cache = {}
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_cache': {}}

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, *args) -> None:
        self._cache = {}
        name = prefix + 'table'
        if name in state_dict:
            table, grid = state_dict[name], state_dict.get(prefix + 'grid')
            if table.ndim == 2 and (grid is not None or len(table) != len(self.table)):
                src = grid_of_table(len(table)) if grid is None else tuple(grid.tolist())
                state_dict[name] = resize_rel_pos_table(table, src, self._grid)
        state_dict[prefix + 'grid'] = torch.tensor(self._grid)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, *args)
