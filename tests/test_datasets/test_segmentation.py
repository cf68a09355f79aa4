import re

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.registry import TRANSFORMS, DefaultScope
from PIL import Image

from mmbeit.datasets.transforms import LoadImageFromFile, LoadSegMap

NUM_CLASSES = 4
SHAPE = (40, 60)


@pytest.fixture
def sample(tmp_path):
    """Write a file or two and give what a data set says of them."""
    draw = np.random.default_rng(0)

    def write(labels=None, image=None, **info) -> dict:
        if image is None:
            image = draw.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
        if labels is None:
            labels = draw.integers(0, NUM_CLASSES + 1, image.shape[:2], dtype=np.uint8)
        paths = dict(img_path=tmp_path / 'image.png', seg_map_path=tmp_path / 'labels.png')
        for path, content in zip(paths.values(), (image, labels), strict=True):
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                Image.fromarray(content).save(path)
        info = dict(reduce_zero_label=True, label_map=None, seg_fields=[], ori_shape=np.shape(image)[:2]) | info
        return {**{key: str(path) for key, path in paths.items()}, **info}

    return write


def load(sample):
    return LoadSegMap(NUM_CLASSES)(dict(sample, seg_fields=[]))


@pytest.mark.parametrize('reduced', [True, False])
@pytest.mark.parametrize('label_map', [None, {0: 255, 1: 0, 2: 255, 3: 1}])
def test_labels_are_those_of_mmseg(sample, reduced, label_map):
    pytest.importorskip('mmseg', reason='needs onedl-mmsegmentation, the extra `seg`')
    labels = np.random.default_rng(1).integers(0, NUM_CLASSES + reduced, SHAPE, dtype=np.uint8)
    labels[:3] = 255
    info = sample(labels, reduce_zero_label=reduced, label_map=label_map)
    with DefaultScope.overwrite_default_scope('mmseg'):
        theirs = TRANSFORMS.build(dict(type='mmseg.LoadAnnotations'))(dict(info, seg_fields=[]))
    ours = load(info)
    assert ours['gt_seg_map'].dtype == theirs['gt_seg_map'].dtype == np.uint8
    np.testing.assert_array_equal(ours['gt_seg_map'], theirs['gt_seg_map'])
    assert ours['seg_fields'] == theirs['seg_fields'] == ['gt_seg_map']


def test_indices_of_a_palette_are_labels(sample):
    labels = np.random.default_rng(1).integers(0, NUM_CLASSES + 1, SHAPE, dtype=np.uint8)
    info = sample(labels)
    image = Image.fromarray(labels, mode='P')
    image.putpalette([7, 8, 9] * 256)
    image.save(info['seg_map_path'])
    np.testing.assert_array_equal(load(info)['gt_seg_map'], np.where(labels == 0, 255, labels - 1.0))


def test_inference_has_no_labels():
    assert LoadSegMap(NUM_CLASSES)({'img_path': 'a.png'}) == {'img_path': 'a.png'}


def refused(info) -> str:
    with pytest.raises(ValueError) as error:
        load(info)
    line = str(error.value)
    assert info['seg_map_path'] in line and '\n' not in line
    return line


def test_mask_of_another_size_than_its_image(sample):
    line = refused(sample(np.ones((20, 60), np.uint8)))
    assert 'are 20 x 60' in line and 'image.png is 40 x 60' in line
    assert 'are 40 x 60 x 3' in refused(sample(np.ones((*SHAPE, 3), np.uint8)))
    assert 'are 60 x 40' in refused(sample(np.ones((60, 40), np.uint8)))


@pytest.mark.parametrize(('label', 'reduced'), [(5, True), (254, True), (300, True), (260, False), (4, False)])
def test_labels_out_of_range(sample, label, reduced):
    labels = np.ones(SHAPE, np.uint16 if label > 255 else np.uint8)
    labels[3, 7] = label
    line = refused(sample(labels, reduce_zero_label=reduced))
    assert f'contain {label}: expected {int(reduced)} to {NUM_CLASSES - 1 + reduced}, or 255 to ignore' in line


@pytest.mark.parametrize('content', [b'', b'?' * 500, 'cut'])
def test_files_that_cannot_be_read(sample, content):
    info = sample()
    for key, loader in (('img_path', LoadImageFromFile()), ('seg_map_path', LoadSegMap(NUM_CLASSES))):
        with open(info[key], 'rb') as file:
            whole = file.read()
        with open(info[key], 'wb') as file:
            file.write(whole[:90] if content == 'cut' else content)
        with pytest.raises(ValueError, match=f'cannot read .* {re.escape(info[key])}'):
            loader(dict(info))
    with pytest.raises(ValueError, match='none.png'):
        LoadImageFromFile()(dict(img_path='none.png'))
    with pytest.raises(ValueError, match='none.png'):
        load(dict(info, seg_map_path='none.png'))


@pytest.mark.parametrize('shape', [(1, 1), (1, 50), (50, 1)])
def test_images_that_are_one_pixel_high_or_wide_can_be_trained_on(sample, shape):
    pytest.importorskip('mmseg', reason='needs onedl-mmsegmentation, the extra `seg`')
    info = sample(np.ones(shape, np.uint8), np.zeros((*shape, 3), np.uint8))
    with DefaultScope.overwrite_default_scope('mmseg'):
        pipeline = Compose(
            [
                dict(type='mmbeit.LoadImageFromFile'),
                dict(type='mmbeit.LoadSegMap', num_classes=NUM_CLASSES),
                dict(type='RandomResize', scale=(256, 64), ratio_range=(0.5, 2.0), keep_ratio=True),
                dict(type='RandomCrop', crop_size=(64, 64), cat_max_ratio=0.75),
                dict(type='RandomFlip', prob=0.5),
                dict(type='PhotoMetricDistortion'),
                dict(type='PackSegInputs'),
            ]
        )
        packed = pipeline(info)
    assert packed['inputs'].shape[1:] == packed['data_samples'].gt_sem_seg.shape
    assert (packed['data_samples'].gt_sem_seg.data == 0).all()
