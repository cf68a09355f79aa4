import random
import warnings

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from PIL import Image

from mmbeit.datasets.samplers import SampleIndex
from mmbeit.datasets.transforms import (
    BlockwiseMask,
    LoadImage,
    RandomErasing,
    RandomResizedCropTwoViews,
    SeedTransforms,
)
from mmbeit.datasets.transforms.image import random_crop_box
from mmbeit.datasets.transforms.mask import blockwise_mask, exact_count
from mmbeit.datasets.transforms.seed import generators_kept, seed_generators

torchvision = pytest.importorskip('torchvision.transforms')


@pytest.fixture(autouse=True)
def _seed_everything():
    random.seed(0)
    np.random.seed(0)


# ---- masks ----


@pytest.mark.parametrize('exact', [False, True])
def test_every_side_of_the_grid_is_masked_as_often_as_the_opposite_one(exact):
    transform = BlockwiseMask(grid=14, num_masked=75, exact=exact)
    frequency = np.mean([transform.transform({})['mask'] for _ in range(4000)], axis=0)
    assert frequency.min() > 0.02
    for mirrored in (frequency[::-1], frequency[:, ::-1], frequency.T):
        assert np.abs(frequency - mirrored).max() < 0.05  # six standard deviations
    rows, columns = frequency.mean(axis=1), frequency.mean(axis=0)
    assert rows[-1] == pytest.approx(rows[0], abs=0.02) and columns[-1] == pytest.approx(columns[0], abs=0.02)


@pytest.mark.parametrize(
    ('grid', 'num_masked'),
    [(14, 75), ((1, 1), 1), ((4, 4), 16), ((4, 4), 15), ((1, 9), 4), ((9, 1), 4), ((3, 10), 12), ((14, 14), 1)],
)
def test_exactly_the_wanted_number_of_patches_is_masked_on_any_grid(grid, num_masked):
    transform = BlockwiseMask(grid, num_masked, exact=True)
    for _ in range(50):
        mask = transform.transform({})['mask']
        assert mask.shape == ((14, 14) if grid == 14 else grid)
        assert mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1}
        assert mask.sum() == num_masked


@pytest.mark.parametrize(('grid', 'num_masked'), [((14, 14), 75), ((1, 1), 1), ((4, 4), 16), ((1, 9), 4), ((6, 4), 9)])
def test_v1_never_masks_more_than_wanted_and_gives_up_in_the_end(grid, num_masked):
    counts = [blockwise_mask(grid, num_masked, min_block=2).sum() for _ in range(100)]
    assert max(counts) <= num_masked


def test_masks_are_made_of_blocks_of_the_wanted_size_and_shape():
    heights = set()
    for _ in range(200):
        mask = blockwise_mask((14, 14), 16, min_block=16, max_block=16)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if mask.sum() > 0 and mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all():
            heights.add(len(rows))
        square = blockwise_mask((14, 14), 16, min_block=16, min_aspect=1.0)
        assert square.sum() == 16 and square.any(axis=1).sum() == 4
    assert {2, 3, 4, 5, 6, 7} <= heights  # aspect 0.3 at 16 patches is 2.2 x 7.3


def test_a_block_is_drawn_for_what_is_left_or_max_block_whichever_is_less(monkeypatch):
    bounds, uniform = [], random.uniform
    monkeypatch.setattr(random, 'uniform', lambda low, high: bounds.append((low, high)) or uniform(low, high))
    assert blockwise_mask((14, 14), 20, min_block=4, max_block=6).sum() == 20
    assert max(high for low, high in bounds if low == 4) == 6
    bounds.clear()
    assert blockwise_mask((14, 14), 5, min_block=4, max_block=6).sum() <= 5
    assert bounds[0] == (4, 5)


def test_the_count_is_repaired_by_adding_or_removing_only():
    mask = np.arange(16).reshape(4, 4) < 6
    more, fewer = exact_count(mask, 9), exact_count(mask, 2)
    assert more.sum() == 9 and (more >= mask).all()
    assert fewer.sum() == 2 and (fewer <= mask).all()
    assert mask.sum() == 6
    assert len({exact_count(mask, 7).tobytes() for _ in range(100)}) == 10  # any of the visible patches


@pytest.mark.parametrize('num_masked', [0, -1, 17])
def test_an_impossible_number_of_masked_patches_is_refused(num_masked):
    with pytest.raises(ValueError, match=rf'num_masked \({num_masked}\) is not between 1 .* grid of \(4, 4\)'):
        BlockwiseMask(grid=4, num_masked=num_masked)


# ---- two views ----


def gradient_image(width=200, height=150):
    """Red tells the column, green the row."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, 0 * x], axis=2).astype(np.uint8))


def edges(values):
    """First and last source pixel that a resized ramp covers, from its middle part, which borders do not bend."""
    size = len(values)
    where = np.arange(size)[size // 4 : -size // 4]
    slope, start = np.polyfit(where, values[size // 4 : -size // 4].astype(float), 1)
    return start - 0.5 * slope + 0.5, start + (size - 0.5) * slope + 0.5


def test_both_views_show_the_same_crop():
    transform = RandomResizedCropTwoViews(size=64, target_size=32)
    boxes = set()
    for _ in range(30):
        state = random.getstate()
        view, target = transform.transform({'img': gradient_image()})['img']
        random.setstate(state)
        top, left, h, w = random_crop_box((150, 200), (0.08, 1.0), (3 / 4, 4 / 3))
        boxes.add((top, left, h, w))
        for image in (view, target):
            assert edges(image[len(image) // 2, :, 0]) == pytest.approx((left, left + w), abs=2)
            assert edges(image[:, len(image) // 2, 1]) == pytest.approx((top, top + h), abs=2)
    assert len(boxes) == 30


def test_views_have_their_own_sizes():
    transform = RandomResizedCropTwoViews(size=(16, 24), target_size=8)
    results = transform.transform({'img': gradient_image()})
    assert [view.shape for view in results['img']] == [(16, 24, 3), (8, 8, 3)]
    assert [view.dtype for view in results['img']] == [np.uint8, np.uint8]
    assert results['img_shape'] == (16, 24)
    assert all(view.flags.writeable for view in results['img'])  # PyTorch warns of arrays that are not


def test_views_equal_those_of_torchvision_on_pillow_images():
    image = Image.fromarray(np.random.randint(256, size=(61, 83, 3), dtype=np.uint8))
    transform = RandomResizedCropTwoViews(size=28, target_size=14)
    state = random.getstate()
    views = transform.transform({'img': image})['img']
    random.setstate(state)
    box = random_crop_box((61, 83), (0.08, 1.0), (3 / 4, 4 / 3))
    for view, size, mode in zip(views, (28, 14), ('BICUBIC', 'LANCZOS'), strict=True):
        expected = torchvision.functional.resized_crop(
            image, *box, size=[size, size], interpolation=torchvision.InterpolationMode[mode]
        )
        assert np.array_equal(view, np.asarray(expected))


def test_views_are_antialiased():
    """A checkerboard finer than the pixels of the view is grey; picking pixels would leave black and white."""
    board = 255 * (np.indices((256, 256)).sum(axis=0) % 2)
    image = Image.fromarray(np.repeat(board[..., None], 3, axis=2).astype(np.uint8))
    transform = RandomResizedCropTwoViews(size=32, target_size=16, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    for view in transform.transform({'img': image})['img']:
        assert np.abs(view[2:-2, 2:-2].astype(float) - 127.5).max() < 8


@pytest.mark.parametrize('size', [(10, 100), (100, 10)])
def test_an_image_that_no_crop_fits_gives_its_centre_as_in_torchvision(size):
    box = random_crop_box(size, scale=(1.0, 1.0), ratio=(3 / 4, 4 / 3))
    image = torch.zeros(3, *size)
    expected = torchvision.RandomResizedCrop.get_params(image, scale=[1.0, 1.0], ratio=[3 / 4, 4 / 3])
    assert box == expected
    assert box[2] < size[0] or box[3] < size[1]


def test_crops_stay_inside_and_within_the_wanted_areas_and_ratios():
    lasts = set()
    for _ in range(3000):
        top, left, h, w = random_crop_box((20, 30), scale=(0.2, 0.5), ratio=(0.5, 2.0))
        assert top >= 0 and top + h <= 20 and left >= 0 and left + w <= 30
        assert 0.15 < h * w / 600 < 0.56 and 0.42 < w / h < 2.4
        lasts.add((top + h == 20, left + w == 30, top == 0, left == 0))
    assert {True} == {any(last[i] for last in lasts) for i in range(4)}  # every border is reached


def test_unknown_interpolation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="interpolation 'area' is not one of nearest, box, bilinear"):
        RandomResizedCropTwoViews(size=8, target_size=4, target_interpolation='area')


# ---- reading ----


def broken_file(tmp_path, kind):
    path = tmp_path / f'{kind}.jpg'
    if kind == 'truncated':
        gradient_image().save(path)
        path.write_bytes(path.read_bytes()[:-800])
    elif kind == 'text':
        path.write_text('not an image')
    elif kind == 'empty':
        path.touch()
    return path


@pytest.mark.parametrize('kind', ['truncated', 'text', 'empty', 'missing'])
def test_a_file_that_cannot_be_read_is_named(tmp_path, kind):
    path = broken_file(tmp_path, kind)
    with pytest.raises(ValueError, match=f'cannot read image .*{kind}.jpg'):
        LoadImage().transform({'img_path': str(path)})
    with pytest.warns(UserWarning, match=f'cannot read image .*{kind}.jpg.*another image takes its place'):
        assert LoadImage(on_error='skip').transform({'img_path': str(path)}) is None


def test_content_that_was_read_already_is_not_read_again(tmp_path):
    gradient_image().save(tmp_path / 'image.png')
    expected = LoadImage().transform({'img_path': str(tmp_path / 'image.png')})
    content = (tmp_path / 'image.png').read_bytes()
    results = LoadImage().transform({'img_path': 'shard.tar/7.png', 'img_bytes': content})
    assert results['img'].tobytes() == expected['img'].tobytes() and results['ori_shape'] == expected['ori_shape']
    for broken in (b'', content[:100]):
        with pytest.warns(UserWarning, match='cannot read image shard.tar/7.png: .*another image takes its place'):
            assert LoadImage(on_error='skip').transform({'img_path': 'shard.tar/7.png', 'img_bytes': broken}) is None


@pytest.mark.parametrize(
    ('mode', 'colour', 'rgb'),
    [('L', 90, (90, 90, 90)), ('RGBA', (10, 20, 30, 128), (10, 20, 30)), ('P', 1, (0, 128, 255)), ('1', 1, (255,) * 3)],
)
def test_images_of_any_mode_become_rgb(tmp_path, mode, colour, rgb):
    image = Image.new(mode, (6, 4), colour)
    if mode == 'P':
        image.putpalette([0, 0, 0, 0, 128, 255])
    image.save(tmp_path / 'image.png')
    results = LoadImage().transform({'img_path': str(tmp_path / 'image.png')})
    assert results['img'].mode == 'RGB'
    assert np.array_equal(np.asarray(results['img']), np.full((4, 6, 3), rgb))
    assert results['img_shape'] == results['ori_shape'] == (4, 6)


def test_unknown_reaction_to_errors_is_refused():
    with pytest.raises(ValueError, match="on_error 'ignore' is not one of"):
        LoadImage(on_error='ignore')


# ---- erasing ----

ERASING = dict(mean=(100.0, 110.0, 120.0), std=(50.0, 60.0, 70.0))


def erased_box(image):
    """Top, left, height and width of the part of a black image that is not black; None where all is."""
    changed = (image != 0).all(axis=2)
    if not changed.any():
        return None
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    box = (rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)
    assert changed.sum() == box[2] * box[3] == (image != 0).any(axis=2).sum()  # one full box, black around it
    return box


def test_erasing_happens_with_its_probability_in_boxes_of_the_wanted_sizes_anywhere():
    transform = RandomErasing(**ERASING, prob=0.25)
    black = np.zeros((40, 60, 3), dtype=np.uint8)
    boxes = [erased_box(transform.transform({'img': black})['img']) for _ in range(2000)]
    assert np.mean([box is not None for box in boxes]) == pytest.approx(0.25, abs=0.03)
    tops, lefts, heights, widths = np.array([box for box in boxes if box]).T
    share = heights * widths / 2400
    assert 0.015 < share.min() < 0.05 and 0.25 < share.max() < 0.36
    aspect = heights / widths
    assert 0.25 < aspect.min() < 0.5 and 2 < aspect.max() < 4
    assert tops.min() == lefts.min() == 0 and (tops + heights).max() == 40 and (lefts + widths).max() == 60


def test_erased_pixels_are_standard_normal_after_normalisation_and_not_clipped():
    transform = RandomErasing(**ERASING, prob=1.0)
    noise = []
    for _ in range(100):
        image = transform.transform({'img': np.zeros((40, 60, 3), dtype=np.uint8)})['img']
        noise.append(image[(image != 0).all(axis=2)])
    noise = np.concatenate(noise)
    assert noise.min() < 0 and noise.max() > 255
    normalised = (noise - ERASING['mean']) / ERASING['std']
    assert np.abs(normalised.mean(axis=0)).max() < 0.02
    assert np.abs(normalised.std(axis=0) - 1).max() < 0.02
    assert np.abs(np.corrcoef(normalised.T) - np.eye(3)).max() < 0.03  # per pixel and channel
    assert ((normalised**4).mean(axis=0) - 3 < 0.2).all()


@pytest.mark.parametrize('prob', [0.0, 1.0])
def test_erasing_gives_float32_and_leaves_its_input_alone(prob):
    image = np.random.randint(256, size=(30, 20, 3), dtype=np.uint8)
    before = image.copy()
    out = RandomErasing(**ERASING, prob=prob).transform({'img': image})['img']
    assert out.dtype == np.float32
    assert np.array_equal(image, before)
    kept = (out == image).all(axis=2)
    assert kept.mean() == 1 if prob == 0 else 0.6 < kept.mean() < 0.99


# ---- seeds ----


def draws(results):
    return {**results, 'draws': (random.random(), np.random.rand(), torch.rand(1).item())}


@pytest.fixture
def pipeline():
    return Compose([SeedTransforms(), draws])


def test_a_seeded_sample_is_augmented_alike_whatever_was_drawn_before(pipeline):
    first = pipeline({'sample_idx': SampleIndex(3, seed=7)})['draws']
    draws({})
    assert pipeline({'sample_idx': SampleIndex(3, seed=7)})['draws'] == first
    other = pipeline({'sample_idx': SampleIndex(3, seed=8)})['draws']
    assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize('results', [{}, {'sample_idx': 3}])
def test_a_sample_without_a_seed_goes_on_with_the_generators_as_they_are(pipeline, results):
    assert pipeline(dict(results))['draws'] != pipeline(dict(results))['draws']


def test_generators_are_kept():
    seed_generators(0)
    expected = draws({})['draws']
    seed_generators(0)
    with generators_kept():
        assert draws({})['draws'] == expected
    assert draws({})['draws'] == expected


def test_nothing_here_warns(tmp_path):
    gradient_image().save(tmp_path / 'image.png')
    steps = [SeedTransforms(), LoadImage(), RandomResizedCropTwoViews(16, 8), BlockwiseMask(4, 6)]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        results = Compose(steps)({'img_path': str(tmp_path / 'image.png'), 'sample_idx': SampleIndex(0, seed=1)})
    assert results['mask'].sum() <= 6
