"""Cheap views against views made in the official order."""

import random

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmpretrain.datasets import PackInputs
from PIL import Image, ImageEnhance

from mmbeit.datasets.transforms import JitterViews, LoadImage, LoadTwoViews, RandomResizedCropTwoViews
from mmbeit.datasets.transforms.fast import decode, jpeg_size, thumbnail
from mmbeit.models import MIMDataPreprocessor

SIZES = dict(size=64, target_size=32)
TURNED = Image.Exif()
TURNED[0x0112] = 6  # by a quarter, which is not looked at
ENHANCERS = dict(brightness=ImageEnhance.Brightness, contrast=ImageEnhance.Contrast, saturation=ImageEnhance.Color)


def photo(size=(200, 150), seed=0):
    """Smooth, like a photo, with a bright and a dark half: the mean of a crop is not that of the whole."""
    draw = np.random.default_rng(seed)
    picture = Image.fromarray(draw.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(picture).astype(float)
    pixels[:, : size[0] // 2] *= 0.4
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def path(tmp_path):
    photo().save(tmp_path / 'photo.png')
    return tmp_path / 'photo.png'


def views_of(path, *steps, seed=0):
    results = dict(img_path=str(path))
    random.seed(seed)
    for step in steps:
        results = step(results)
    return results


def difference(a, b):
    return np.abs(np.asarray(a).astype(float) - np.asarray(b)).mean()


@pytest.mark.parametrize('seed', range(4))
def test_crops_are_those_of_the_official_order(path, seed):
    fast = views_of(path, LoadTwoViews(**SIZES), seed=seed)
    exact = views_of(path, LoadImage(), RandomResizedCropTwoViews(**SIZES), seed=seed)
    for cheap, view in zip(fast['img'], exact['img'], strict=True):
        assert difference(cheap, view) < 0.5
    assert fast['img_shape'] == exact['img_shape'] == (64, 64)
    assert fast['ori_shape'] == exact['ori_shape'] == (150, 200)


@pytest.mark.parametrize('seed', range(6))
def test_colours_are_those_of_the_official_order(path, seed, monkeypatch):
    """The whole photo is changed and then cut, with the same draws in the same order."""
    draws = []
    uniform, sample = random.uniform, random.sample
    results = views_of(path, LoadTwoViews(**SIZES), seed=seed)
    monkeypatch.setattr(random, 'uniform', lambda *bounds: draws.append(uniform(*bounds)) or draws[-1])
    order = []
    monkeypatch.setattr(random, 'sample', lambda items, k: order.extend(sample(items, k)) or order)
    fast = JitterViews(flip_prob=0.0)(results)['img']
    monkeypatch.undo()
    whole = photo()
    for (change, least, most), factor in zip(order, draws, strict=True):
        assert least == 0.6 and most == 1.4 and least <= factor <= most
        whole = ENHANCERS[change.__name__.removeprefix('adjust_')](whole).enhance(factor)
    random.seed(seed)
    exact = RandomResizedCropTwoViews(**SIZES)(dict(img=whole))['img']
    for cheap, view in zip(fast, exact, strict=True):
        assert difference(cheap, view) < 3
        assert difference(cheap, 0 * view) > 20


def test_contrast_is_about_the_mean_of_the_whole_photo(path):
    contrast = JitterViews(brightness=0, saturation=0, flip_prob=0.0)
    results = dict(img=[np.full((8, 8, 3), 200, np.uint8)], thumbnail=np.full((8, 8, 3), 100, np.uint8))
    random.seed(1)
    factor = random.Random(1)
    factor.sample([0], 1)
    expected = 100 + factor.uniform(0.6, 1.4) * 100
    assert abs(contrast(results)['img'][0].mean() - min(expected, 255)) <= 1


@pytest.mark.parametrize(
    ('size', 'decoded'),
    [((1200, 900), (150, 113)), ((600, 400), (150, 100)), ((200, 150), (100, 75)), ((110, 90), (110, 90))],
)
def test_large_jpeg_files_are_decoded_small(tmp_path, monkeypatch, size, decoded):
    file = tmp_path / 'photo.jpg'
    photo(size).save(file, quality=95)
    seen = []
    monkeypatch.setattr(cv2, 'imdecode', lambda *args, of=cv2.imdecode: seen.append(of(*args)) or seen[-1])
    options = dict(**SIZES, scale=(0.9, 1.0))
    fast = views_of(file, LoadTwoViews(**options))
    assert seen[0].shape == (*decoded[::-1], 3)
    assert fast['ori_shape'] == size[::-1]
    exact = views_of(file, LoadImage(), RandomResizedCropTwoViews(**options))
    for cheap, view in zip(fast['img'], exact['img'], strict=True):
        assert difference(cheap, view) < 3


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK', 'P', 'RGBA', '1'])
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp'])
def test_pixels_are_those_of_pillow(tmp_path, mode, suffix):
    file = tmp_path / f'photo.{suffix}'
    try:
        photo().convert(mode).save(file, exif=TURNED)
    except (OSError, KeyError):
        pytest.skip(f'no {suffix} in {mode}')
    content = file.read_bytes()
    with Image.open(file) as image:
        size = jpeg_size(content)
        assert size == (image.size if (image.format, image.mode) == ('JPEG', 'RGB') else None)
        assert np.array_equal(decode(content, size is not None), np.asarray(image.convert('RGB')))


@pytest.mark.parametrize('options', [dict(progressive=True), dict(comment=b'\xff\xc0' * 40), dict(exif=TURNED)])
def test_the_size_of_a_jpeg_file_is_that_of_pillow(tmp_path, options, monkeypatch):
    photo((130, 70)).save(tmp_path / 'photo.jpg', **options)
    content = (tmp_path / 'photo.jpg').read_bytes()
    assert jpeg_size(content) == (130, 70)
    first = content.index(b'\xff\xda')  # the scan
    assert all(jpeg_size(content[:end]) in (None, (130, 70)) for end in range(first + 20))
    assert jpeg_size(content[:60] + content[first:]) is None
    for marker in (b'\xff', b'\xff\xd0'):  # padding, and one without a length: left to Pillow
        assert jpeg_size(content[:2] + marker + content[2:]) is None
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 9000)  # then Pillow is to say what it thinks of it
    assert jpeg_size(content) is None


def test_a_thumbnail_has_pixels_of_the_whole_image():
    rows = np.arange(96 * 3, dtype=np.uint8).reshape(96, 1, 3).repeat(200, axis=1)
    small = thumbnail(rows)
    assert small.shape == (48, 100, 3)
    assert abs(small.astype(float).mean() - rows.mean()) < 3


def test_equal_views_are_made_once(path):
    one, two = views_of(path, LoadTwoViews(64, 64, target_interpolation='bicubic'))['img']
    assert one is two


def test_all_views_are_mirrored_or_none(path):
    loaded = views_of(path, LoadTwoViews(**SIZES))
    still = JitterViews(0, 0, 0, flip_prob=0.0)(dict(loaded))['img']
    mirrored = JitterViews(0, 0, 0, flip_prob=1.0)(dict(loaded))['img']
    for a, b in zip(still, mirrored, strict=True):
        assert a.dtype == b.dtype == np.uint8 and np.array_equal(a[:, ::-1], b)
        assert a.flags.c_contiguous and b.flags.c_contiguous


@pytest.mark.parametrize('together', [default_collate, pseudo_collate])
def test_views_changed_on_the_device_are_those_changed_on_the_way(path, together):
    """Of a batch of six, of which some are mirrored, whose colours change in other orders."""
    samples = {True: [], False: []}
    for seed in range(6):
        loaded = views_of(path, LoadTwoViews(**SIZES), seed=seed)
        for on_device, batch in samples.items():
            random.seed(seed)
            batch.append(PackInputs().transform(JitterViews(on_device=on_device)(dict(loaded))))
    preprocess = MIMDataPreprocessor(mean=[0.0] * 3, std=[1.0] * 3)
    with torch.autocast('cpu', torch.bfloat16):
        late, early = (preprocess(together([dict(inputs=s['inputs']) for s in samples[key]])) for key in (True, False))
    for a, b, scale in zip(late['inputs'], early['inputs'], (1, 255), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype == torch.float32 and a.is_contiguous()
        # OpenCV calculates in fixed point, so some are rounded to the next number, which is then multiplied.
        difference = (a - b).mul(scale).abs()
        assert difference.max() < 3.5 and (difference < 0.5).float().mean() > 0.9
    flips = {bool(sample['inputs'][-1]) for sample in samples[True]}
    assert flips == {True, False}


def test_unreadable_files_are_as_for_other_loaders(tmp_path):
    file = tmp_path / 'broken.jpg'
    photo().save(file)
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ValueError, match=r'cannot read image .*broken\.jpg'):
        views_of(file, LoadTwoViews(**SIZES))
    with pytest.warns(UserWarning, match='another image takes its place'):
        assert views_of(file, LoadTwoViews(**SIZES, on_error='skip')) is None
