"""Cases of the data pipeline: samples of two views from JPEG files, by one core."""

import atexit
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
import torch
from measure import Case, Contender, Setting
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope
from PIL import Image

from mmbeit.datasets.transforms.fast import on_the_way
from mmbeit.resources import resource_root

RECIPE = resource_root() / 'configs' / 'beit' / 'beit_beit-base-p16_8xb256-amp-coslr-800e_in1k.py'
FAST = RECIPE.with_stem(f'{RECIPE.stem}-fast-views')
SIZES = ((500, 375), (375, 500), (500, 333))  # of most photos of ImageNet
LARGE = ((1600, 1200),)  # of many photos elsewhere
NUM_PHOTOS = 24
MMPRETRAIN = [
    dict(type='LoadImageFromFile'),
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.0),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandomResizedCropAndInterpolationWithTwoPic',
        size=224,
        second_size=112,
        interpolation='bicubic',
        second_interpolation='lanczos',
        scale=(0.08, 1.0),
    ),
    dict(type='BEiTMaskGenerator', input_size=(14, 14), num_masking_patches=75, max_num_patches=75, min_num_patches=16),
    dict(type='PackInputs'),
]


@cache
def photos(sizes: tuple[tuple[int, int], ...]) -> list[str]:
    """JPEG files with as much detail as photos have: of 0.7 to 0.9 bytes per pixel in colour."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    draw, paths = np.random.default_rng(0), []
    for i in range(NUM_PHOTOS):
        width, height = sizes[i % len(sizes)]
        coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        noisy = smooth + draw.normal(0, 12, (height, width, 1))
        paths.append(str(Path(folder.name, f'{i}.jpg')))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def steps_of(recipe: Path) -> list[dict]:
    return Config.fromfile(recipe).train_dataloader.dataset.pipeline


def decode_only(results: dict) -> None:
    with Image.open(results['img_path']) as image:
        image.convert('RGB')


def built(steps: list[dict]) -> Callable[[dict], dict]:
    import mmpretrain.datasets  # noqa: F401, fills the registry

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Compose([TRANSFORMS.build(dict(step)) for step in steps])


PIPELINES: dict[str, Callable[[], Callable]] = {
    'mmbeit': lambda: built(steps_of(FAST)),
    'mmbeit, colours by the same core': lambda: built(on_the_way(steps_of(FAST))),
    'mmbeit, official order': lambda: built(steps_of(RECIPE)),
    'mmpretrain': lambda: built(MMPRETRAIN),
    'decoding alone': lambda: decode_only,
}


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def samples(sizes: tuple[tuple[int, int], ...], name: str, setting: Setting) -> Contender:
    run, paths = PIPELINES[name](), photos(sizes)[:: 6 if setting.quick else 1]

    def step() -> None:
        with one_thread():
            for path in paths:
                run(dict(img_path=path))

    return Contender(step, len(paths))


def case(name: str, title: str, sizes: tuple[tuple[int, int], ...]) -> Case:
    return Case(
        name,
        title,
        {contender: partial(samples, sizes, contender) for contender in PIPELINES},
        unit='samples',
        flops=False,
        dtypes=('float32',),
        devices=('cpu',),
    )


CASES = [
    case('data', 'Two views and a mask from a JPEG file of ImageNet, one core, colours left to the device', SIZES),
    case('data-large', 'The same from a JPEG file of 1600 x 1200', LARGE),
]
