import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from builders import randomize, tiny_beit
from scipy.interpolate import RectBivariateSpline

from mmbeit.layers import kernels
from mmbeit.layers.position import (
    BiasRows,
    BiasTable,
    RelativePositionBias,
    geometric_coordinates,
    num_table_rows,
    relative_index,
    resize_abs_pos_embed,
    resize_matrix,
    resize_rel_pos_table,
    spline_matrix,
)

RESIZES = [((4, 4), (7, 7)), ((7, 7), (4, 4)), ((14, 14), (24, 24)), ((3, 5), (6, 4)), ((5, 3), (5, 9))]


def random_table(grid, heads=2, dtype=torch.float64):
    return torch.randn(num_table_rows(grid), heads, dtype=dtype)


def as_map(table, grid):
    """The part of a table for pairs of patches: (2h - 1, 2w - 1, heads)."""
    return table[:-3].view(2 * grid[0] - 1, 2 * grid[1] - 1, -1)


@pytest.fixture
def bias():
    return randomize(RelativePositionBias((3, 4), num_heads=2))


# ---- resizing ----


@pytest.mark.parametrize(('side', 'rows'), [(14, 732), (16, 964), (24, 2212), (32, 3972), (40, 6244)])
def test_rows_of_official_tables(side, rows):
    assert num_table_rows((side, side)) == rows


@pytest.mark.parametrize('num_knots', [1, 2, 3, 4, 5, 9])
def test_spline_goes_through_the_values_at_its_knots(num_knots):
    knots = torch.rand(num_knots, dtype=torch.float64).cumsum(0) + torch.arange(num_knots)
    torch.testing.assert_close(spline_matrix(knots, knots), torch.eye(num_knots, dtype=torch.float64))


@pytest.mark.parametrize('num_knots', [2, 3, 4, 5, 9])
def test_spline_reproduces_polynomials_and_is_constant_outside(num_knots):
    knots = torch.rand(num_knots, dtype=torch.float64).cumsum(0) + torch.arange(num_knots)
    points = torch.linspace(knots[0] - 1, knots[-1] + 1, 50, dtype=torch.float64)
    degree = min(num_knots - 1, 3)
    expected = points.clamp(knots[0], knots[-1]) ** degree
    torch.testing.assert_close(spline_matrix(knots, points) @ knots**degree, expected)


@pytest.mark.parametrize(('src', 'dst'), RESIZES)
def test_resized_table_against_scipy(src, dst):
    table = random_table(src)
    ours = as_map(resize_rel_pos_table(table, src, dst), dst)
    # The official code knows square grids only. An axis that keeps its size is left alone here.
    knots = [range(1 - s, s) if s == d else geometric_coordinates(s, d) for s, d in zip(src, dst, strict=True)]
    points = [range(1 - d, d) for d in dst]
    for head in range(2):
        spline = RectBivariateSpline(*knots, as_map(table, src)[..., head].numpy(), kx=3, ky=3, s=0)
        torch.testing.assert_close(ours[..., head], torch.from_numpy(spline(*points)), rtol=1e-9, atol=1e-9)


def test_table_of_the_same_grid_is_left_alone():
    table = random_table((3, 5))
    assert resize_rel_pos_table(table, (3, 5), (3, 5)) is table
    assert torch.equal(resize_matrix(4, 4), torch.eye(7, dtype=torch.float64))


def test_axes_are_resized_independently_of_each_other():
    table = random_table((3, 5))
    at_once = resize_rel_pos_table(table, (3, 5), (6, 4))
    one_by_one = resize_rel_pos_table(resize_rel_pos_table(table, (3, 5), (6, 5)), (6, 5), (6, 4))
    torch.testing.assert_close(at_once, one_by_one)
    # The axis that keeps its size is not touched: row by row, the other one is resized alone.
    tall = as_map(resize_rel_pos_table(table, (3, 5), (6, 5)), (6, 5))
    for column in range(9):
        alone = resize_matrix(3, 6) @ as_map(table, (3, 5))[:, column]
        torch.testing.assert_close(tall[:, column], alone)


def test_height_and_width_are_treated_alike():
    table = random_table((3, 5))
    turned = torch.cat([as_map(table, (3, 5)).transpose(0, 1).reshape(-1, 2), table[-3:]])
    resized = as_map(resize_rel_pos_table(table, (3, 5), (7, 4)), (7, 4))
    torch.testing.assert_close(as_map(resize_rel_pos_table(turned, (5, 3), (4, 7)), (4, 7)), resized.transpose(0, 1))


@pytest.mark.parametrize(('src', 'dst'), [*RESIZES, ((1, 1), (3, 3)), ((2, 1), (4, 5)), ((3, 3), (1, 2))])
def test_constant_tables_stay_constant_and_the_rows_of_the_class_token_are_copied(src, dst):
    table = torch.full((num_table_rows(src), 2), 0.7, dtype=torch.float64)
    table[-3:] = torch.tensor([[1.0], [2.0], [3.0]])
    resized = resize_rel_pos_table(table, src, dst)
    assert len(resized) == num_table_rows(dst)
    torch.testing.assert_close(resized[:-3], torch.full_like(resized[:-3], 0.7))
    assert torch.equal(resized[-3:], table[-3:])


@pytest.mark.parametrize(('src', 'dst'), RESIZES)
def test_bias_of_the_nearest_neighbours_is_kept(src, dst):
    table = random_table(src)
    old, new = as_map(table, src), as_map(resize_rel_pos_table(table, src, dst), dst)
    old = old[src[0] - 2 : src[0] + 1, src[1] - 2 : src[1] + 1]
    new = new[dst[0] - 2 : dst[0] + 1, dst[1] - 2 : dst[1] + 1]
    torch.testing.assert_close(new, old)


def test_resizing_passes_gradients():
    table = random_table((3, 4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: resize_rel_pos_table(t, (3, 4), (5, 2)), table)


def test_resizing_keeps_the_dtype_and_computes_in_double_precision():
    table = random_table((5, 5))
    resized = resize_rel_pos_table(table.float(), (5, 5), (8, 8))
    exact = resize_rel_pos_table(table.float().double(), (5, 5), (8, 8))
    assert torch.equal(resized, exact.float())


def test_table_with_a_wrong_number_of_rows_is_refused():
    with pytest.raises(ValueError, match=r'grid \(3, 4\) has 38 rows, this one has 37'):
        resize_rel_pos_table(torch.zeros(37, 2), (3, 4), (5, 5))


def test_absolute_embedding_is_resized_bicubically_and_keeps_the_class_token():
    embed = torch.randn(1, 1 + 3 * 5, 6)
    assert resize_abs_pos_embed(embed, (3, 5), (3, 5)) is embed
    resized = resize_abs_pos_embed(embed, (3, 5), (4, 7))
    assert torch.equal(resized[:, 0], embed[:, 0])
    for channel in range(6):
        patches = embed[0, 1:, channel].view(1, 1, 3, 5)
        expected = F.interpolate(patches, size=(4, 7), mode='bicubic', align_corners=False)
        torch.testing.assert_close(resized[0, 1:, channel], expected.flatten())


# ---- the module and its cache ----


@pytest.mark.parametrize('grid', [None, (3, 4), (5, 2)])
def test_cached_bias_equals_the_lookup_in_the_table(bias, grid):
    where = grid or (3, 4)
    table = resize_rel_pos_table(bias.table, (3, 4), where)
    expected = table[relative_index(where)].permute(2, 0, 1)
    assert torch.equal(bias(grid), expected)
    with torch.no_grad():
        first, second = bias(grid), bias(grid)
    assert first is second
    assert torch.equal(first, expected)


def test_cache_tells_grids_and_dtypes_apart(bias):
    with torch.no_grad():
        results = {(grid, dtype): bias(grid, dtype) for grid in ((3, 4), (4, 3)) for dtype in (None, torch.bfloat16)}
        for (grid, dtype), result in results.items():
            assert result.dtype == (dtype or torch.float32)
            assert torch.equal(result, bias._gather(grid, result.dtype))


def change_by_optimizer(bias):
    optimizer = torch.optim.SGD(bias.parameters(), lr=1.0)
    bias().square().sum().backward()
    optimizer.step()


def change_by_loading(bias):
    bias.load_state_dict({**bias.state_dict(), 'table': torch.randn(38, 2)})


def change_by_loading_and_assigning(bias):
    table = torch.randn(38, 2)
    while table._version < bias.table._version:
        table.mul_(1)  # so that its version tells nothing
    bias.load_state_dict({**bias.state_dict(), 'table': table}, assign=True)


def change_by_casting(bias):
    bias.to(torch.float64)


def change_by_casting_there_and_back(bias):
    bias.to(torch.bfloat16).to(torch.float32)


def change_by_swapping(bias):
    """mmengine's EMAHook swaps weights behind autograd's back; its loops call `eval` afterwards."""
    bias.table.data.copy_(torch.randn(38, 2))
    bias.eval()


CHANGES = [
    change_by_optimizer,
    change_by_loading,
    change_by_loading_and_assigning,
    change_by_casting,
    change_by_casting_there_and_back,
    change_by_swapping,
]


@pytest.mark.parametrize('change', CHANGES)
def test_cache_is_dropped_when_the_table_changes(bias, change):
    with torch.no_grad():
        before = bias()
    change(bias)
    with torch.no_grad():
        after = bias()
    assert after.dtype == bias.table.dtype
    assert torch.equal(after, bias._gather((3, 4), bias.table.dtype))
    assert after.dtype != before.dtype or not torch.equal(after, before)


def test_cache_is_not_used_where_gradients_flow(bias):
    with torch.no_grad():
        cached = bias()
    flowing = bias()
    assert flowing is not cached
    flowing.sum().backward()
    # Every pair of tokens counts once in the row of the table that it reads.
    counts = torch.bincount(relative_index((3, 4)).flatten(), minlength=38).float()
    torch.testing.assert_close(bias.table.grad, counts[:, None].expand(-1, 2))


def test_gradients_of_blocks_that_compute_in_bfloat16_are_summed_in_the_dtype_of_the_table(bias):
    torch.manual_seed(0)
    whole, weights = bias(dtype=torch.bfloat16), torch.randn(8, 2, 13, 13).bfloat16()
    sum((whole.bfloat16() * weight).sum() for weight in weights).backward()
    index, expected = relative_index((3, 4)).flatten(), torch.zeros(2, 38, dtype=torch.double)
    expected.index_add_(1, index, weights.double().sum(dim=0).flatten(1))
    torch.testing.assert_close(bias.table.grad.double(), expected.T, rtol=1e-5, atol=1e-5)


def test_cache_of_a_frozen_table_is_used_in_training_too(bias):
    bias.requires_grad_(False)
    assert bias() is bias()


def test_frozen_bias_cached_under_inference_mode_can_be_saved_for_backward(bias):
    bias.requires_grad_(False)
    with torch.inference_mode():
        bias()
    query = torch.ones(2, 13, 13, requires_grad=True)
    (query * bias()).sum().backward()  # as a fused attention kernel does
    torch.testing.assert_close(query.grad, bias())


@pytest.mark.parametrize('clone', [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_cache_does_not_travel(bias, clone):
    with torch.no_grad():
        bias()
        twin = clone(bias)
        assert bias._cache and not twin._cache
        assert torch.equal(twin(), bias())


def test_model_can_be_trained_after_its_first_call_under_inference_mode():
    model = tiny_beit(img_size=(8 * 3, 8 * 7))  # sizes that no other test uses: index and matrices are built here
    images, larger = torch.randn(1, 3, 24, 56), torch.randn(1, 3, 40, 88)
    with torch.inference_mode():
        expected = [model(images)[-1].clone(), model(larger)[-1].clone()]
    for size, values in zip((images, larger), expected, strict=True):
        out = model(size)[-1]
        torch.testing.assert_close(out, values)
        out.sum().backward()
    assert model.rel_pos_bias[0].table.grad.abs().sum() > 0


def test_index_built_on_the_meta_device_is_a_real_one():
    with torch.device('meta'):
        index = relative_index((2, 9))
    assert index.device.type == 'cpu' and index[0, 0] == num_table_rows((2, 9)) - 1


# ---- loading ----


def test_square_table_of_another_size_needs_no_recorded_grid():
    source, target = randomize(RelativePositionBias((4, 4), 2)), RelativePositionBias((6, 6), 2)
    target.load_state_dict({'table': source.table.detach()})
    assert torch.equal(target.table, resize_rel_pos_table(source.table, (4, 4), (6, 6)))
    assert target.grid.tolist() == [6, 6]


@pytest.mark.parametrize(('src', 'dst'), [((3, 5), (4, 4)), ((4, 4), (3, 5)), ((2, 6), (3, 4)), ((2, 3), (3, 2))])
def test_recorded_grid_is_used_to_resize_and_then_replaced(src, dst):
    source, target = randomize(RelativePositionBias(src, 2)), RelativePositionBias(dst, 2)
    target.load_state_dict(source.state_dict(), strict=True)
    assert torch.equal(target.table, resize_rel_pos_table(source.table, src, dst))
    assert target.grid.tolist() == list(dst)
    assert source.grid.tolist() == list(src)


def test_table_of_the_same_rows_is_loaded_as_it_is_without_a_recorded_grid():
    source, target = randomize(RelativePositionBias((3, 5), 2)), RelativePositionBias((3, 5), 2)
    target.load_state_dict({'table': source.table.detach()}, strict=True)
    assert torch.equal(target.table, source.table)


def test_table_of_an_unknown_grid_is_refused():
    target = RelativePositionBias((4, 4), 2)
    with pytest.raises(ValueError, match='48 rows is of no square grid'):
        target.load_state_dict({'table': torch.zeros(48, 2)})


def test_recorded_grid_that_contradicts_the_rows_is_refused():
    target = RelativePositionBias((4, 4), 2)
    with pytest.raises(ValueError, match=r'grid \(3, 6\) has 58 rows, this one has 48'):
        target.load_state_dict({'table': torch.zeros(48, 2), 'grid': torch.tensor([3, 6])})


@pytest.mark.parametrize('grid', [(4, 4), (3, 5), (7, 2), (1, 6)])
@pytest.mark.parametrize('max_bytes', [1, 1000, 10**9])
def test_rows_of_a_bias_are_those_of_the_whole(grid, max_bytes):
    bias = RelativePositionBias(grid, 3)
    torch.nn.init.normal_(bias.table)
    whole, seen = bias().detach(), []
    for queries, rows in BiasRows(bias.table.detach(), grid).chunks(max_bytes):
        assert torch.equal(rows, whole[:, queries])
        assert rows.numel() * 4 <= max(max_bytes, 3 * (1 + grid[0]) * whole.shape[1] * 4) + 3 * whole.shape[1] * 4
        seen += queries.tolist()
    assert sorted(seen) == list(range(whole.shape[1]))


@torch.no_grad()
def test_biases_of_many_sizes_do_not_pile_up(monkeypatch):
    bias = randomize(RelativePositionBias((4, 4), 2))
    monkeypatch.setattr(kernels, 'MAX_KEPT', 2 * 26**2 * 2 * 4)  # two of the largest
    expected = {(h, w): bias((h, w)).clone() for h in range(1, 6) for w in range(1, 6)}
    for grid, whole in expected.items():
        first, again = bias(grid), bias(grid)
        assert torch.equal(first, whole) and again is first
        assert sum(kept.nbytes for kept in bias._cache.values()) <= kernels.MAX_KEPT
    assert len(bias._cache) > 1


@torch.no_grad()
def test_one_larger_than_what_is_kept_is_kept_alone_where_it_is_asked_for(monkeypatch, set_kernel):
    bias = RelativePositionBias((4, 4), 2)
    monkeypatch.setattr(kernels, 'MAX_KEPT', 1)
    set_kernel('whole')
    assert bias() is bias() and bias((5, 5)) is bias((5, 5)) and len(bias._cache) == 1


@pytest.mark.parametrize('grid', [(4, 4), (3, 5), (7, 2), (1, 6), (1, 1)])
def test_a_bias_looked_up_in_its_table_is_the_whole_one(grid):
    bias = RelativePositionBias(grid, 3)
    torch.nn.init.normal_(bias.table)
    whole, add = bias().detach(), BiasTable(bias.table.detach(), grid).score_mod()
    heads, queries, keys = torch.meshgrid(*(torch.arange(n) for n in whole.shape), indexing='ij')
    logits = torch.randn(whole.shape)
    assert torch.equal(add(logits, torch.tensor(0), heads, queries, keys), logits + whole)


def test_a_large_bias_comes_in_rows_where_no_gradient_can_reach_it(monkeypatch):
    bias = RelativePositionBias((4, 4), 3)
    monkeypatch.setattr(kernels, 'MAX_KEPT', 3 * 17 * 17 * 4 - 1)
    assert isinstance(bias(), torch.Tensor)
    with torch.no_grad():
        assert isinstance(bias(), BiasRows) and not bias._cache
        assert isinstance(bias(dtype=torch.bfloat16), torch.Tensor)  # half the size
        assert isinstance(bias((5, 6)), BiasRows)
