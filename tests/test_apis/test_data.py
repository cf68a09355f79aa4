"""The data configs: each agrees with its recipe, and the pictures are those of the recipe and of torchvision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image

from mmbeit.apis.data import DataConfig
from mmbeit.apis.index import models
from mmbeit.resources import resource_root

ROOT = resource_root()
# mmpretrain's weights, fine-tuned with other statistics than they were pretrained with
OTHER_STATISTICS = {'beit-base-p16_beit-pre_8xb128-coslr-100e_in1k'}
SHAPES = [(300, 400), (400, 300), (257, 1001), (224, 224), (31, 47), (1000, 33), (385, 384)]


def picture(height, width):
    pixels = np.random.default_rng(height).integers(0, 256, (max(height // 8, 2), max(width // 8, 2), 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height))


@pytest.mark.parametrize('name', models())
def test_data_config_of_a_model_is_that_of_its_recipe(name):
    entry = models()[name]
    assert set(entry['Data']) == {'Mean', 'Std', 'Size', 'Crop', 'Interpolation'}
    data = DataConfig.from_metafile(entry['Data'])
    recipe = DataConfig.from_config(Config.fromfile(ROOT / entry['Config']))
    if name in OTHER_STATISTICS:
        assert recipe.mean != data.mean == data.std == (127.5,) * 3
        recipe = DataConfig(data.mean, data.std, recipe.size, recipe.crop, recipe.interpolation)
    assert data == recipe


def test_official_geometries():
    of = {'beit3': [], 'others': []}
    for name, model in models().items():
        of['beit3' if name.startswith('beit3') else 'others'].append((model['Data']['Size'], model['Data']['Crop']))
    assert set(of['others']) == {(224, 0.875), (384, 1.0), (512, 1.0), (640, 1.0), (256, 1.0)}
    assert set(of['beit3']) == {(224, 1.0), (512, 1.0), *((size, None) for size in (224, 384, 480, 768))}
    for name, model in models().items():
        if name.startswith('beit3'):
            assert (model['Data']['Mean'] == [127.5] * 3) == (model['Data']['Crop'] is None)
            continue
        imagenet = 'beitv2' in name or 'ade20k' in name  # for segmentation whatever the pretraining had
        half = ('in21k' in name and not imagenet) or name in OTHER_STATISTICS
        if not name.startswith(('dvae', 'vqkd')):
            assert model['Data']['Mean'] == ([127.5] * 3 if half else [123.675, 116.28, 103.53])


@pytest.mark.parametrize('size', [224, 384])
@pytest.mark.parametrize('shape', SHAPES)
def test_pictures_are_those_of_torchvision_and_of_the_recipe(shape, size, tmp_path):
    from torchvision import transforms  # after mmbeit, which lets it be imported

    cfg = Config.fromfile(
        ROOT / f'configs/beit/benchmarks/beit-base-p16_beit-pre_8xb128-coslr-100e_in1k{"-384px" * (size == 384)}.py'
    )
    data = DataConfig.from_config(cfg)
    image = picture(*shape)
    official = transforms.Compose(
        [
            transforms.Resize(int(size / data.crop), transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(np.array(data.mean) / 255, np.array(data.std) / 255),
        ]
    )(image)
    torch.testing.assert_close(data([image])[0], official.float(), rtol=0, atol=1e-5)
    image.save(tmp_path / 'image.png')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pixels = Compose(cfg.test_pipeline)(dict(img_path=str(tmp_path / 'image.png')))['inputs']
    cropped = np.array(data.crop_image(image)).transpose(2, 0, 1)
    assert np.array_equal(cropped, pixels.numpy()[::-1])


def test_without_a_crop_the_whole_picture_is_squeezed():
    data = DataConfig([0] * 3, [1] * 3, (24, 16), crop=None, interpolation='bilinear')
    image = picture(60, 90)
    assert np.array_equal(data.crop_image(image), image.resize((16, 24), Image.Resampling.BILINEAR))


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('crop', [0.875, 1.0])
def test_other_sizes_and_shapes(shape, crop):
    data = DataConfig([10, 20, 30], [1, 2, 3], 32, crop).at_size((48, 80))
    batch = data([picture(*shape)] * 2)
    assert batch.shape == (2, 3, 48, 80)
    expected = np.array(data.crop_image(picture(*shape)))[0, 0]
    torch.testing.assert_close(batch[1, :, 0, 0], torch.tensor((expected - [10, 20, 30]) / [1, 2, 3]).float())


@pytest.mark.parametrize(
    ('recipe', 'size', 'crop'),
    [
        ('beit/quickstart/beit-mini-p4_1xb50-coslr-200e_digits', 16, None),
        ('beit/quickstart/dvae_digits', 16, None),
        ('beit/quickstart/beit_beit-mini-p4_1xb64-amp-coslr-90e_digits', 16, 0.875),
    ],
)
def test_data_of_other_recipes(recipe, size, crop):
    data = DataConfig.from_config(Config.fromfile(Path(ROOT, 'configs', f'{recipe}.py')))
    assert data.size == (size, size) and data.crop == crop


def test_bad_values():
    with pytest.raises(ValueError, match="interpolation 'cubic' is not one of nearest"):
        DataConfig([0] * 3, [1] * 3, 32, interpolation='cubic')
    with pytest.raises(ValueError, match='crop'):
        DataConfig([0] * 3, [1] * 3, 32, crop=1.2)
    with pytest.raises(ValueError, match='no mean and std'):
        DataConfig.from_config(Config(dict(model=dict(type='X'))))
    with pytest.raises(ValueError, match='no model.backbone.img_size'):
        DataConfig.from_config(Config(dict(model=dict(data_preprocessor=dict(mean=[0] * 3, std=[1] * 3)))))
