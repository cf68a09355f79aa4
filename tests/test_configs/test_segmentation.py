"""The recipes for ADE20K against the official ones (unilm:beit/semantic_segmentation/configs/, beit2/ likewise)."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import mmcv
import mmengine
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, PARAM_SCHEDULERS, DefaultScope
from PIL import Image
from test_configs.recipes import (
    FAMILIES,
    IMAGENET,
    PATHS,
    ROOT,
    SEGMENTATION,
    cost_of,
    model_of,
    parse,
    read,
    statistics,
    walk,
)
from test_configs.test_metafile import MODELS, table_rows
from torch import nn

from mmbeit.apis.complexity import build_on_meta, complexity
from mmbeit.datasets.samplers import seeded

pytest.importorskip('mmseg', reason='needs onedl-mmsegmentation, the extra `seg`')
# BEiT-3's recipes are nobody's but ours, and there are no weights: test_beit3.py.
SEGMENTATION = [name for name in SEGMENTATION if not name.startswith('beit3-')]
UPERNET = [name for name in SEGMENTATION if '_upernet_' in name]
PROBES = [name for name in SEGMENTATION if '_linear_' in name]


class Official(NamedTuple):
    lr: float
    layer_decay: float
    drop_path: float
    layer_scale: float
    iters: int
    warmup: int
    accumulate: int


OFFICIAL = {
    'base_beit-pre_512': Official(7e-4, 0.65, 0.1, 0.1, 160_000, 1500, 1),
    'base_beit-in21k-pre_512': Official(3e-5, 0.9, 0.1, 0.1, 160_000, 1500, 1),
    'base_beit-in21k-pre_640': Official(3e-5, 0.9, 0.1, 0.1, 160_000, 1500, 1),
    'large_beit-in21k-pre_512': Official(2e-5, 0.95, 0.2, 1e-6, 160_000, 1500, 1),
    'large_beit-in21k-pre_640': Official(2e-5, 0.95, 0.2, 1e-6, 320_000, 3000, 2),
    'base_beitv2-1600e-pre_512': Official(5e-5, 0.75, 0.15, 0.1, 160_000, 1500, 1),
    'base_beitv2-in21k-pre_512': Official(5e-5, 0.85, 0.15, 0.1, 160_000, 1500, 1),
    'large_beitv2-1600e-pre_512': Official(4e-5, 0.9, 0.2, 1e-6, 160_000, 1500, 1),
    'large_beitv2-in21k-pre_512': Official(3e-5, 0.9, 0.2, 1e-6, 160_000, 1500, 1),
}
# Counted in the official models of 640 pixels; at 512 only the tables are smaller.
PARAMETERS = {'base': 163_407_980, 'large': 441_271_084}
# Multiply-adds of the whole network in G, by arch and crop.
FLOPS = {('base', 512): 605.06, ('base', 640): 962.32, ('large', 512): 1246.62, ('large', 640): 1992.94}


class Whole(nn.Module):
    """A segmentor without `extract_feat`, so that its decoder is counted, too."""

    def __init__(self, segmentor: nn.Module):
        super().__init__()
        self.segmentor = segmentor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.segmentor(x, mode='tensor')


@cache
def whole_flops(name: str) -> int:
    return complexity(Whole(model_of(name)).eval(), [read(name).model.backbone.img_size] * 2).num_flops


def test_every_official_recipe_is_there():
    assert len(UPERNET) == len(OFFICIAL)
    keys = [re.fullmatch(r'beit-(\w+)-p16_(.*)_upernet_.*x(\d+)', name).groups() for name in UPERNET]
    assert {'_'.join(key) for key in keys} == set(OFFICIAL)


@pytest.mark.parametrize('name', UPERNET)
def test_training_is_the_official_one(name):
    cfg, said = read(name), parse(name)
    arch, weights = re.fullmatch(r'beit-(\w+)-p16_(.*)_upernet', said['model']).groups()
    official = OFFICIAL[f'{arch}_{weights}_{said["size"]}']
    optimizer, backbone = cfg.optim_wrapper.optimizer, cfg.model.backbone
    assert official == Official(
        optimizer.lr,
        cfg.optim_wrapper.paramwise_cfg.layer_decay_rate,
        backbone.drop_path_rate,
        backbone.layer_scale,
        cfg.train_cfg.max_iters,
        cfg.param_scheduler[0].end - 1,
        cfg.optim_wrapper.get('accumulative_counts', 1),
    )
    assert (optimizer.type, optimizer.betas, optimizer.weight_decay) == ('AdamW', (0.9, 0.999), 0.05)
    assert 'clip_grad' not in cfg.optim_wrapper
    assert said['gpus'] * said['batch'] * said['accumulate'] == 16
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == official.iters // 10
    assert statistics(cfg) == IMAGENET, 'whatever the weights were pretrained with'


@pytest.mark.parametrize('name', UPERNET)
def test_model_is_the_official_one(name):
    cfg, size = read(name).model, parse(name)['size']
    width, taps = {'base': (768, (3, 5, 7, 11)), 'large': (1024, (7, 11, 15, 23))}[cfg.backbone.arch]
    assert (cfg.backbone.out_indices, cfg.backbone.out_type) == (taps, 'featmap')
    assert not cfg.backbone.get('final_norm')
    for head in (cfg.decode_head, cfg.auxiliary_head):
        assert (head.num_classes, head.dropout_ratio, head.align_corners) == (150, 0.1, False)
    assert cfg.decode_head.channels == width
    assert cfg.decode_head.in_channels == [width] * 4
    assert cfg.decode_head.pool_scales == (1, 2, 3, 6)
    assert (cfg.auxiliary_head.in_channels, cfg.auxiliary_head.in_index, cfg.auxiliary_head.channels) == (width, 2, 256)
    assert (cfg.auxiliary_head.num_convs, cfg.auxiliary_head.concat_input) == (1, False)
    assert (cfg.decode_head.loss_decode.loss_weight, cfg.auxiliary_head.loss_decode.loss_weight) == (1.0, 0.4)
    assert {node.norm_cfg.type for node in walk(cfg) if 'norm_cfg' in node} == {'SyncBN'}
    stride = {512: 341, 640: 426}[size]
    assert cfg.test_cfg == dict(mode='slide', crop_size=(size, size), stride=(stride, stride))
    assert (cfg.data_preprocessor.size, cfg.data_preprocessor.pad_val) == ((size, size), 0)
    assert cfg.data_preprocessor.bgr_to_rgb and cfg.data_preprocessor.seg_pad_val == 255


@pytest.mark.parametrize('name', SEGMENTATION)
def test_learning_rate_is_the_official_one_at_every_step(name):
    """Of mmcv 1.3: `by_epoch=False, policy='poly', power=1, min_lr=0, warmup='linear', warmup_ratio=1e-6`."""
    cfg = read(name)
    length, warmup = cfg.train_cfg.max_iters, cfg.param_scheduler[0].end - 1
    rates = [0.25, 1.0]
    optimizer = torch.optim.SGD([dict(params=[nn.Parameter(torch.zeros(1))], lr=rate) for rate in rates], lr=1.0)
    schedules = []
    for schedule in map(dict, cfg.param_scheduler):
        schedules.append(PARAM_SCHEDULERS.get(schedule.pop('type'))(optimizer=optimizer, **schedule))
    for step in range(length):
        official = 1 - step / length
        if step < warmup:
            official *= 1 - (1 - step / warmup) * (1 - 1e-6)
        if step < 5 or step % 1499 == 0 or step > length - 3:
            found = [group['lr'] for group in optimizer.param_groups]
            assert found == pytest.approx([rate * official for rate in rates], rel=1e-6), step
        for schedule in schedules:
            schedule.step()


@pytest.mark.parametrize('name', UPERNET)
def test_parameter_groups_are_the_official_ones(name):
    cfg, model = read(name), model_of(name)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    of = {id(p): (group['lr'], group['weight_decay']) for group in optimizer.param_groups for p in group['params']}
    lr, rate = cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.paramwise_cfg.layer_decay_rate
    depth = len(model.backbone.blocks)
    for parameter, height, decay in (
        ('decode_head.conv_seg.weight', 0, 0.05),
        ('auxiliary_head.convs.0.bn.weight', 0, 0),
        ('neck.upsample_4x.0.weight', 0, 0.05),
        ('neck.upsample_2x.0.bias', 0, 0),
        (f'backbone.blocks.{depth - 1}.mlp.fc2.weight', 1, 0.05),
        ('backbone.blocks.0.scale1.gamma', depth, 0),
        ('backbone.rel_pos_bias.0.table', depth, 0.05),
        ('backbone.patch_embed.proj.weight', depth + 1, 0.05),
        ('backbone.cls_token', depth + 1, 0.05),
    ):
        assert of[id(model.get_parameter(parameter))] == (pytest.approx(lr * rate**height), decay), parameter


@pytest.mark.parametrize('name', UPERNET)
def test_parameters_and_flops(name):
    arch, size = read(name).model.backbone.arch, parse(name)['size']
    tables = {'base': 12 * 12, 'large': 24 * 16}[arch]  # blocks x heads
    saved = {512: 79**2 - 63**2, 640: 0}[size]
    assert cost_of(name).num_parameters == PARAMETERS[arch] - saved * tables
    assert whole_flops(name) / 1e9 == pytest.approx(FLOPS[arch, size], abs=0.005)


# ---- data ----


@pytest.fixture(scope='module')
def sample(tmp_path_factory):
    """Write an image of a size, and its labels; give what the data set says of them."""
    folder, draw = tmp_path_factory.mktemp('ade20k'), np.random.default_rng(0)

    def write(height, width):
        image = draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        labels = draw.integers(0, 151, (height // 8 + 1, width // 8 + 1), dtype=np.uint8)
        paths = folder / f'{height}_{width}.jpg', folder / f'{height}_{width}.png'
        for pixels, path in zip((image, labels), paths, strict=True):
            Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST).save(path)
        info = dict(reduce_zero_label=True, label_map=None, seg_fields=[], sample_idx=seeded(0, 1))
        return dict(img_path=str(paths[0]), seg_map_path=str(paths[1]), **info)

    return write


def run(pipeline, info):
    with DefaultScope.overwrite_default_scope('mmseg'):
        return Compose(pipeline)(dict(info, seg_fields=[]))


@pytest.mark.parametrize('name', SEGMENTATION)
def test_training_sees_crops_of_the_size_of_the_backbone(name, sample):
    cfg, size = read(name), parse(name)['size']
    packed = run(cfg.train_dataloader.dataset.pipeline, sample(500, 683))
    labels = packed['data_samples'].gt_sem_seg.data
    assert packed['inputs'].shape[1:] == labels.shape[1:]
    assert max(labels.shape) <= size, 'smaller ones are padded by the preprocessor'
    assert set(labels.unique().tolist()) <= {*range(150), 255}
    resize = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomResize')
    assert (resize.scale, resize.ratio_range, resize.keep_ratio) == ((4 * size, size), (0.5, 2.0), True)


@pytest.mark.parametrize('name', SEGMENTATION)
def test_evaluation_resizes_the_short_side_and_keeps_the_labels_as_they_are(name, sample):
    cfg, size = read(name), parse(name)['size']
    packed = run(cfg.test_dataloader.dataset.pipeline, sample(300, 450))
    assert packed['inputs'].shape == (3, size, size * 3 // 2)
    assert packed['data_samples'].gt_sem_seg.data.shape == (1, 300, 450)


def official_size(height, width, crop, ratio):
    """Of an image in the multi-scale test (`SETR_Resize`)."""
    short = max(min(int(4 * crop * ratio), int(crop * ratio)), crop)
    scale = (short * height / width, short) if height > width else (short, short * width / height)
    return mmcv.imrescale(np.zeros((height, width), np.uint8), scale).shape


@pytest.mark.parametrize('name', [name for name in UPERNET if 'beit-in21k-pre' in name])
@pytest.mark.parametrize('shape', [(683, 512), (256, 256), (333, 500), (480, 641), (130, 600), (719, 1013)])
def test_sizes_of_the_multi_scale_test_are_the_official_ones(name, shape, sample):
    packed = run(read(name).tta_pipeline, sample(*shape))
    crop = parse(name)['size']
    official = [official_size(*shape, crop, ratio) for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75) for _ in range(2)]
    assert [tuple(x.shape[1:]) for x in packed['inputs']] == official
    assert len(official) == 12 and official[:6] == official[:1] * 6
    assert [sample.flip for sample in packed['data_samples']] == [False, True] * 6
    for plain, mirrored in zip(packed['inputs'][::2], packed['inputs'][1::2], strict=True):
        assert torch.equal(plain, mirrored.flip(-1))
    assert all(sample.gt_sem_seg.shape == shape for sample in packed['data_samples'])


# ---- probes ----


@pytest.mark.parametrize('name', PROBES)
def test_a_probe_trains_a_norm_and_one_linear_layer(name):
    cfg, model = read(name), model_of(name)
    trainable = {n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad}
    width = model.backbone.embed_dims
    assert trainable == {
        'neck.norms.0.weight': (width,),
        'neck.norms.0.bias': (width,),
        'decode_head.conv_seg.weight': (150, width, 1, 1),
        'decode_head.conv_seg.bias': (150,),
    }
    model.train()
    assert not any(module.training for block in model.backbone.blocks for module in block.modules())
    assert model.neck.norms.training
    assert model.backbone.out_indices == (len(model.backbone.blocks) - 1,)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert {(group['lr'], group['weight_decay']) for group in optimizer.param_groups} == {(1e-3, 1e-4)}
    assert statistics(cfg) == IMAGENET


def test_logits_of_a_probe_are_linear_in_the_normalised_map():
    from test_checkpoint.peers import build_in_mmseg, randomize_norms

    cfg = read(PROBES[0]).model.copy()
    cfg.backbone = dict(
        type='mmbeit.BEiT', arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)
    )
    cfg.backbone.update(img_size=32, patch_size=8, out_type='featmap', out_indices=(1,), frozen_stages=2)
    cfg.neck.update(in_channels=[24], norm_cfg=dict(type='BN'))
    cfg.decode_head.update(in_channels=[24], channels=24)
    model = randomize_norms(build_in_mmseg(cfg)).eval()
    images = torch.randn(2, 3, 32, 32)
    (features,), norm, linear = model.backbone(images), model.neck.norms[0], model.decode_head.conv_seg
    normalised = nn.functional.batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    expected = torch.einsum('bdhw,kd->bkhw', normalised, linear.weight[:, :, 0, 0]) + linear.bias.view(-1, 1, 1)
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match='in_channels is of 1 maps, but there are 2'):
        model.neck([features, features])


# ---- files ----


@pytest.mark.parametrize('name', SEGMENTATION)
def test_weights_to_start_from_are_where_another_recipe_puts_them(name):
    work_dirs, recipe, file = Path(read(name).model.backbone.init_cfg.checkpoint).parts
    assert work_dirs == 'work_dirs'
    assert file == f'epoch_{read(recipe).train_cfg.max_epochs}.pth'
    assert read(recipe).model.backbone.arch == read(name).model.backbone.arch


RESULTS = [
    (model, result['Metrics'])
    for model in MODELS.values()
    for result in model['Results'] or []
    if result['Task'] == 'Semantic Segmentation' and model['In Collection'] != 'BEiT3'
]


def test_every_released_file_is_there():
    release = 'https://github.com/addf400/files/releases/download'
    official = [f'{release}/v1.0/beit_{arch}_patch16_640_pt22k_ft22ktoade20k.pth' for arch in ('base', 'large')]
    official += [
        f'{release}/BEiT-v2/beitv2_{arch}_patch16_224_pt1k_{labels}ade20k.pth'
        for arch in ('base', 'large')
        for labels in ('ft', 'ft21kto')
    ]
    weights = [model['Weights'] for model, _ in RESULTS if 'Weights' in model]
    assert sorted(url for url in weights if url.startswith(release)) == sorted(official)
    others = [
        model for model, _ in RESULTS if 'open-mmlab/mmsegmentation' in model.get('Converted From', {}).get('Code', '')
    ]
    assert len(others) == len(weights) - len(official) == 2


def test_results_of_mmseg_are_those_of_its_own_index():
    import mmseg

    index = mmengine.load(Path(mmseg.__file__).parent / '.mim/configs/beit/metafile.yaml')
    theirs = {Path(model['Weights']).name: model['Results']['Metrics'] for model in index['Models']}
    ours = {Path(model['Weights']).name: metrics for model, metrics in RESULTS if 'Mirrors' in model}
    assert ours == theirs
    assert {url for model, _ in RESULTS for url in model.get('Mirrors', [])} == {m['Weights'] for m in index['Models']}


def test_readmes_have_the_results_of_the_metafile():
    rows = {recipe: row for family in FAMILIES for recipe, row in table_rows(family) if recipe in SEGMENTATION}
    assert sorted(rows) == sorted(SEGMENTATION) == sorted({Path(model['Config']).stem for model, _ in RESULTS})
    for model, metrics in RESULTS:
        recipe = Path(model['Config']).stem
        row, numbers = rows[recipe], [f'{value}' for value in (metrics or {}).values()]
        if 'open-mmlab' in model.get('Converted From', {}).get('Code', ''):
            assert ' and '.join(numbers) in row['Source']
        else:
            assert [row[column] for column in ('mIoU (%)', 'ms + flip (%)') if row[column]] == numbers
        assert row['with decoder (G)'] == f'{whole_flops(recipe) / 1e9:.2f}'
        data = dict(zip(('Mean', 'Std'), IMAGENET, strict=True), Size=parse(recipe)['size'], Crop=1.0)
        assert model['Data'] == {**data, 'Interpolation': 'bilinear'}
        header = PATHS[recipe].read_text().partition('_base_')[0]
        if '3rdparty' in model['Name']:
            assert all(f'{float(number):.1f}' in header or number[:4] in header for number in numbers)


@pytest.mark.parametrize('name', SEGMENTATION)
def test_a_recipe_holds_nothing_but_a_config(name):
    """No variable of a loop is left in it."""
    assert not {'step', 'side', 'prob'} & set(read(name))


def test_example_of_the_readme_segments_classes_of_ones_own(tmp_path):
    text = (ROOT / 'configs/beit/README.md').read_text()
    (example,) = [block for block in re.findall(r'(?s)```python\n(.*?)```', text) if 'upernet' in block]
    mine = tmp_path / 'mine.py'
    mine.write_text(example.replace("_base_ = '", f"_base_ = '{ROOT}/configs/beit/benchmarks/"))
    cfg = Config.fromfile(mine)
    assert {node['num_classes'] for node in walk(cfg._cfg_dict.to_dict()) if 'num_classes' in node} == {3}
    assert all('_delete_' not in node for key, node in cfg.items() if key.endswith('loader') for node in walk(node))
    assert cfg.test_dataloader == cfg.val_dataloader
    for loader, pipeline in (('train', cfg.train_pipeline), ('val', cfg.test_pipeline)):
        assert cfg[f'{loader}_dataloader'].dataset.pipeline == pipeline
        for kind in ('images', 'masks'):
            (tmp_path / 'data' / loader / kind).mkdir(parents=True)
            Image.fromarray(np.full((9, 9), 2, np.uint8)).save(tmp_path / 'data' / loader / kind / 'a.png')
        (tmp_path / 'data' / loader / 'images' / 'a.png').rename(tmp_path / 'data' / loader / 'images' / 'a.jpg')
        dataset = dict(cfg[f'{loader}_dataloader'].dataset, data_root=str(tmp_path / 'data'))
        with DefaultScope.overwrite_default_scope('mmseg'):
            (packed,) = DATASETS.build(dataset)
        assert set(packed['data_samples'].gt_sem_seg.data.unique().tolist()) == {2}
    assert build_on_meta(cfg).decode_head.conv_seg.out_channels == 3
