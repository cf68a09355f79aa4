"""RandAugment of BEiT-3: its operations, its mistakes, and what it draws."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from mmbeit.datasets.transforms import rand_augment
from mmbeit.datasets.transforms.rand_augment import (
    OPS,
    RandAugment,
    auto_contrast,
    brighten,
    equalize,
    rotate,
    sharpen,
    warp,
)


@pytest.fixture
def images():
    draw = np.random.default_rng(0)
    noise = draw.integers(30, 200, (17, 23, 3))
    ramp = np.linspace(0, 255, 17 * 23 * 3).reshape(17, 23, 3)
    dark = draw.integers(0, 40, (40, 31, 3))
    flat = np.full((9, 9, 3), 77)
    return [image.astype(np.uint8) for image in (noise, ramp, dark, flat)]


def test_operations_are_those_of_pillow(images):
    for image in images:
        pil = Image.fromarray(image)
        assert np.array_equal(auto_contrast(image, 'clip'), np.array(ImageOps.autocontrast(pil)))
        assert np.array_equal(equalize(image), np.array(ImageOps.equalize(pil)))
        brighter = np.array(ImageEnhance.Brightness(pil).enhance(1.36)).astype(int)
        assert np.abs(brighten(image, 1.36) - brighter).max() <= 1
        sharper = np.array(ImageEnhance.Sharpness(pil).enhance(1.36)).astype(int)
        assert np.abs(sharpen(image, 1.36, 'clip') - sharper)[1:-1, 1:-1].max() <= 2
        assert np.array_equal(sharpen(image, 1.36, 'clip')[0], image[0])


def test_official_mistakes_are_made_on_demand_only():
    block = np.full((20, 20, 3), 120, np.uint8)
    block[6:14, 6:14] = 255
    assert sharpen(block, 1.36, 'wrap')[6, 6, 0] == 17 and sharpen(block, 1.36, 'clip')[6, 6, 0] == 255
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = np.arange(16).reshape(4, 4) * 16
    image[..., 1] = np.arange(16).reshape(4, 4) * 16 + 1
    wrong, right = auto_contrast(image, 'wrap'), auto_contrast(image, 'clip')
    assert (wrong[..., 1] == 255).all() and np.array_equal(wrong[..., 0], right[..., 0])
    assert right[..., 1].min() == 0 and right[..., 1].max() == 255
    assert np.array_equal(image[..., 2], wrong[..., 2]), 'a channel of one value stays'


def test_golden_values_of_the_official_code():
    image = (np.arange(48).reshape(4, 4, 3) * 37 % 256).astype(np.uint8)
    assert brighten(image, 1.36)[0].tolist() == [[0, 50, 100], [150, 201, 251], [255, 4, 54], [104, 155, 205]]
    assert sharpen(image, 1.36, 'wrap')[1:3, 1:3].tolist() == [
        [[21, 72, 117], [161, 212, 0]],
        [[3, 240, 27], [78, 123, 167]],
    ]
    assert equalize(image)[0].tolist() == [[0, 37, 74], [111, 148, 185], [222, 3, 40], [77, 114, 151]]


def test_a_shift_moves_whole_pixels_and_grey_comes_in():
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    moved = warp(image, np.float32([[1, 0, -2], [0, 1, 0]]))
    assert np.array_equal(moved[:, :3], image[:, 2:]) and (moved[:, 3:] == 128).all()
    assert np.array_equal(rotate(image, 0.0), image)
    big = np.full((40, 40, 3), 9, np.uint8)
    assert (rotate(big, 45.0)[0, 0] == 128).all() and (rotate(big, 45.0)[20, 20] == 9).all()


def test_what_is_drawn_and_how_strong_it_is(monkeypatch):
    image, seen = np.full((50, 50, 3), 60, np.uint8), []
    monkeypatch.setattr(rand_augment, 'warp', lambda x, m: (seen.append(np.array(m)), x)[1])
    monkeypatch.setattr(rand_augment, 'rotate', lambda x, degrees: (seen.append(degrees), x)[1])
    monkeypatch.setattr(rand_augment, 'brighten', lambda x, factor: (seen.append(factor), x)[1])
    monkeypatch.setattr(rand_augment, 'sharpen', lambda x, factor, overflow: (seen.append(factor), x)[1])
    np.random.seed(0)
    augment = RandAugment()
    for _ in range(4000):
        augment.transform(dict(img=image))
    numbers = [x for x in seen if not isinstance(x, np.ndarray)]
    assert {round(abs(x), 6) for x in numbers} == {1.36, 21.0}
    assert min(numbers) == -21.0 and 1.36 in numbers and -1.36 not in numbers
    entries = [m.ravel() for m in seen if isinstance(m, np.ndarray)]
    values = {i: {round(float(m[i]), 5) for m in entries} for i in range(6)}
    assert values[1] == {0.0, 0.21, -0.21} == values[3] and values[2] == {0.0, 7.0, -7.0} == values[5]
    # Of 8000 operations half are applied, and seven of ten kinds are counted here.
    assert abs(len(seen) - 2800) < 6 * np.sqrt(8000 * 0.35 * 0.65)


def test_draws_come_in_the_official_order():
    np.random.seed(3)
    RandAugment().transform(dict(img=np.full((9, 9, 3), 60, np.uint8)))
    after = np.random.random()
    np.random.seed(3)
    for name in np.random.choice(OPS, 2):
        if np.random.random() <= 0.5 and name in OPS[5:]:
            np.random.random()
    assert np.random.random() == after


def test_unknown_values_are_refused():
    with pytest.raises(ValueError, match=r"overflow 'saturate' is not one of \('clip', 'wrap'\)"):
        RandAugment(overflow='saturate')
    with pytest.raises(ValueError, match=r'level \(11\) is not between 0 and 10'):
        RandAugment(level=11)
