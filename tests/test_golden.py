"""Numbers that the official code gives (microsoft/unilm, beit/ and beit2/, float32 on CPU)."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from torch import nn

from mmbeit.datasets.transforms.image import random_crop_box
from mmbeit.datasets.transforms.mask import blockwise_mask, exact_count
from mmbeit.layers.position import geometric_coordinates, relative_index, resize_rel_pos_table
from mmbeit.layers.quantizer import NormEMAQuantizer

SCHEDULES = Path(__file__).parents[1] / 'configs' / '_base_' / 'schedules'

# Official names, and ours.
OFFICIAL = [
    (r'(cls_token|mask_token|patch_embed\.proj\.\w+|fc_norm\.\w+)', r'backbone.\1'),
    (r'(lm_)?head\.(\w+)', r'head.fc.\2'),
    (r'norm\.(\w+)', r'head.norm.\1'),
    (r'rel_pos_bias\.relative_position_bias_table', 'backbone.rel_pos_bias.0.table'),
    (r'blocks\.(\d+)\.attn\.relative_position_bias_table', r'backbone.rel_pos_bias.\1.table'),
    (r'blocks\.(\d+)\.gamma_([12])', r'backbone.blocks.\1.scale\2.gamma'),
    (r'(blocks\.\d+\.(norm[12]|attn|mlp)\..+)', r'backbone.\1'),
    (r'cls_pt_layers\.(\d+)\.gamma_([12])', r'neck.blocks.\1.scale\2.gamma'),
    (r'cls_pt_layers\.(\d+)\.(.+)', r'neck.blocks.\1.\2'),
    (r'fpn1\.(.+)', r'neck.upsample_4x.\1'),
    (r'fpn2\.(.+)', r'neck.upsample_2x.\1'),
]
OFFICIAL_IN_BLOCK = [
    *('gamma_1', 'gamma_2', 'norm1.weight', 'norm1.bias', 'norm2.weight', 'norm2.bias'),
    *('attn.q_bias', 'attn.v_bias', 'attn.qkv.weight', 'attn.proj.weight', 'attn.proj.bias'),
    *('mlp.fc1.weight', 'mlp.fc1.bias', 'mlp.fc2.weight', 'mlp.fc2.bias'),
]
STEM = ('cls_token', 'patch_embed.proj.weight', 'patch_embed.proj.bias')


def our_name(official):
    return next(match.expand(ours) for pattern, ours in OFFICIAL if (match := re.fullmatch(pattern, official)))


def fill(model, names):
    """Set all parameters by a formula over the official names in lexicographic order."""
    parameters = dict(model.named_parameters())
    assert {our_name(name) for name in names} == set(parameters)
    for rank, name in enumerate(sorted(names)):
        parameter = parameters[our_name(name)]
        values = 0.3 * torch.sin(0.37 * torch.arange(parameter.numel(), dtype=torch.float64) + rank)
        if 'gamma' in name or (parameter.ndim == 1 and name.endswith('.weight')):
            values += 1
        parameter.data.copy_(values.view_as(parameter))
    model.eval()
    return model


def images_of(size, count=2):
    values = torch.sin(0.013 * torch.arange(count * 3 * size**2, dtype=torch.float64))
    return values.float().view(count, 3, size, size)


@pytest.fixture
def classifier():
    """The fine-tuning model of two blocks."""
    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type='mmbeit.BEiT',
                arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=64),
                img_size=32,
                patch_size=16,
            ),
            head=dict(type='LinearClsHead', num_classes=5, in_channels=16),
        )
    )
    in_block = [*OFFICIAL_IN_BLOCK, 'attn.relative_position_bias_table']
    names = [*STEM, 'fc_norm.weight', 'fc_norm.bias', 'head.weight', 'head.bias']
    return fill(model, names + [f'blocks.{i}.{name}' for i in range(2) for name in in_block])


def logits(model):
    with torch.no_grad():
        features = model.extract_feat(images_of(32))
        return features[-1], model.head(features)


def test_features_and_logits_of_the_fine_tuning_model(classifier):
    features, scores = logits(classifier)
    expected = [
        [-0.7228453, -0.6404338, -0.4734074, -0.2432637, 0.0200815],
        [-0.6348255, -0.6110892, -0.5065662, -0.3346001, -0.1175166],
    ]
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=0, atol=2e-6)
    pooled = torch.tensor([-0.6189407, 1.2302392, 0.5072703, -1.1927664])
    torch.testing.assert_close(features[0, :4], pooled, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ('name', 'change'), [('backbone.rel_pos_bias.0.table', 5.5e-2), ('backbone.blocks.1.attn.q_bias', 5.3e-3)]
)
def test_logits_of_the_fine_tuning_model_move_as_officially_without_one_of_its_biases(classifier, name, change):
    _, before = logits(classifier)
    with torch.no_grad():
        classifier.get_parameter(name).zero_()
    _, after = logits(classifier)
    assert (after - before).abs().max().item() == pytest.approx(change, rel=0.02)


def test_logits_and_losses_of_the_pretraining_model_of_v2():
    model = MODELS.build(
        dict(
            type='mmbeit.MaskedImageModeling',
            backbone=dict(
                type='mmbeit.BEiT',
                arch=dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=64),
                img_size=64,
                patch_size=16,
                rel_pos_bias='shared',
                mask_token=True,
                out_type='raw',
            ),
            neck=dict(type='mmbeit.PatchAggregationNeck', early_layers=2),
            head=dict(type='mmbeit.MIMHead', num_codes=7),
        )
    )
    names = [*STEM, 'mask_token', 'rel_pos_bias.relative_position_bias_table', 'norm.weight', 'norm.bias']
    names += ['lm_head.weight', 'lm_head.bias']
    names += [f'blocks.{i}.{name}' for i in range(4) for name in OFFICIAL_IN_BLOCK]
    fill(model, names + [f'cls_pt_layers.{i}.{name}' for i in range(2) for name in OFFICIAL_IN_BLOCK])
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, [1, 5, 6, 10, 15]] = mask[1, [0, 2, 3, 12]] = True
    ids = torch.zeros(2, 16, dtype=torch.long).masked_scatter(mask, torch.arange(9) % 7)
    with torch.no_grad():
        streams = model.streams(images_of(64), mask)
        scores, losses = model.head(streams), model.head.loss(streams, ids[mask])
    mim = [2.5735815, 2.5533013, 2.2002997, 1.5611150, 0.7195033, -0.2145376, -1.1191462]
    cls = [-0.0869480, 0.0924632, 0.2601939, 0.3948477, 0.4792258, 0.5025214, 0.4617018]
    for name, row, total, loss in (('mim', mim, 74.46742, 2.2709098), ('cls', cls, 18.94898, 2.0300150)):
        torch.testing.assert_close(scores[name][0], torch.tensor(row), rtol=0, atol=5e-6)
        assert scores[name].shape == (9, 7) and scores[name].sum().item() == pytest.approx(total, abs=1e-4)
        assert losses[f'loss_{name}'].item() == pytest.approx(loss, abs=2e-6)


# ---- segmentation: the backbone of beit/semantic_segmentation/, base's taps and window, its pyramid in eval mode ----


@pytest.fixture(scope='module')
def segmentation_model():
    """The backbone and the pyramid of twelve blocks and 512 pixels."""
    model = nn.Module()
    model.backbone = MODELS.build(
        dict(
            type='mmbeit.BEiT',
            arch=dict(embed_dims=16, num_layers=12, num_heads=2, feedforward_channels=64),
            img_size=512,
            patch_size=16,
            out_type='featmap',
            out_indices=(3, 5, 7, 11),
        )
    )
    model.neck = MODELS.build(dict(type='mmbeit.FeaturePyramid', in_channels=16))
    in_block = [*OFFICIAL_IN_BLOCK, 'attn.relative_position_bias_table']
    pyramid = [f'{layer}.{kind}' for layer in ('fpn1.0', 'fpn1.1', 'fpn1.3', 'fpn2.0') for kind in ('weight', 'bias')]
    return fill(model, [*STEM, *pyramid, *(f'blocks.{i}.{name}' for i in range(12) for name in in_block)])


@torch.no_grad()
def values_of(maps):
    """Five values of each map, and their sum."""
    cells = torch.stack([torch.cat([x[0, :3, 5, 9], x[0, :2, -1, 0]]) for x in maps])
    return cells, [x.double().sum().item() for x in maps]


def test_maps_of_the_segmentation_backbone_at_512_pixels(segmentation_model):
    with torch.no_grad():
        maps = segmentation_model.backbone(images_of(512, count=1))
        cells, sums = values_of(maps)
        levels, level_sums = values_of(segmentation_model.neck(maps))
    expected = [
        [-11.2061214, 5.2463412, 7.7692308, -12.4721165, 6.0033493],
        [-14.9115076, -7.7130737, 7.5918980, -16.4119854, -5.9985666],
        [-4.2389812, -20.0266228, -22.9819069, -6.3832865, -18.1431847],
        [-17.5777264, 2.5948780, 5.7754931, -18.5031719, 4.7589655],
    ]
    torch.testing.assert_close(cells, torch.tensor(expected), rtol=0, atol=1e-4)
    assert sums == pytest.approx([8673.5925, 13419.2605, 24933.7749, 27057.9681], abs=0.1)
    expected = [
        [-8.9261322, 27.1224041, 14.1086960],
        [6.0768142, -32.0408592, -12.3885002],
        [-4.2389812, -20.0266228, -22.9819069],
        [-17.4936218, 2.6390321, 6.5865712],
    ]
    torch.testing.assert_close(levels[:, :3], torch.tensor(expected), rtol=0, atol=1e-4)
    assert level_sums == pytest.approx([460190.303, -108160.697, 24933.775, 8191.217], abs=0.5)


def test_maps_of_the_segmentation_backbone_move_as_officially_without_one_of_its_biases(segmentation_model):
    image, table = images_of(512, count=1), segmentation_model.get_parameter('backbone.rel_pos_bias.0.table')
    with torch.no_grad():
        before, kept = segmentation_model.neck(segmentation_model.backbone(image)), table.clone()
        table.zero_()
        after = segmentation_model.neck(segmentation_model.backbone(image))
        table.copy_(kept)
    changes = [(a - b).abs().max().item() for a, b in zip(after, before, strict=True)]
    assert changes == pytest.approx([1.745e-2, 9.86e-3, 3.97e-3, 6.15e-3], rel=0.02)


def test_relative_index_of_the_14_x_14_grid():
    index = relative_index((14, 14))
    assert index[1:, 1:].diagonal().unique().tolist() == [364]
    pairs = {(1, 2): 363, (2, 1): 365, (1, 15): 337, (15, 1): 391, (1, 196): 0, (196, 1): 728}
    assert {pair: index[pair].item() for pair in pairs} == pairs
    assert index[0, 1:].unique().tolist() == [729]
    assert index[1:, 0].unique().tolist() == [730]
    assert index[0, 0] == 731
    assert index.sum() == 14_270_119


def test_relative_index_of_a_grid_that_is_not_square():
    assert relative_index((2, 3))[:5].tolist() == [
        [17, 15, 15, 15, 15, 15, 15],
        [16, 7, 6, 5, 2, 1, 0],
        [16, 8, 7, 6, 3, 2, 1],
        [16, 9, 8, 7, 4, 3, 2],
        [16, 12, 11, 10, 7, 6, 5],
    ]


@pytest.mark.parametrize(
    ('grid', 'q', 'outermost'),
    [
        (16, 1.0234928, 14.999963),
        (24, 1.0903074, 22.999934),
        (30, 1.1250559, 28.999949),
        (32, 1.1349178, 31.000182),
        (40, 1.1685036, 39.000083),
        (12, 1.0100009, 13.809406),
        (10, 1.0100009, 13.809406),
    ],
)
def test_coordinates_of_a_table_of_14_patches_on_another_grid(grid, q, outermost):
    coordinates = geometric_coordinates(14, grid)
    centre = len(coordinates) // 2
    assert len(coordinates) == 27 and coordinates[centre : centre + 2] == [0, 1]
    assert coordinates[centre + 2] - 1 == pytest.approx(q, abs=6e-8)
    assert coordinates[-1] == pytest.approx(outermost, abs=6e-7)
    assert coordinates == [-x for x in reversed(coordinates)]


@pytest.mark.parametrize(
    ('grid', 'expected'),
    [
        (24, (0.000000, 0.848872, 0.919479, 0.200000, 1108.2815)),
        (32, (-0.000030, 0.984811, 0.097655, 0.200164, 2001.3214)),
        (40, (-0.000012, 0.888495, 0.430971, 0.200057, 3163.5998)),
        (10, (0.367207, 0.629043, -0.061444, 0.459573, 179.8233)),
    ],
)
def test_resized_table(grid, expected):
    row, column = torch.meshgrid(torch.arange(27), torch.arange(27), indexing='ij')
    patches = ((27 * row + column) % 11 / 10).reshape(-1, 1)
    table = torch.cat([patches, torch.tensor([[7.0], [8.0], [9.0]])])
    resized = resize_rel_pos_table(table, (14, 14), (grid, grid))
    assert resized[-3:].flatten().tolist() == [7, 8, 9]
    z = resized[:-3].view(2 * grid - 1, 2 * grid - 1)
    corners = torch.stack([z[0, 0], z[3, 10], z[10, 3], z[-1, -1]])
    torch.testing.assert_close(corners, torch.tensor(expected[:4]), rtol=0, atol=1e-6)
    assert z.double().sum().item() == pytest.approx(expected[4], abs=1e-3)


def in_hex(mask):
    return ' '.join(f'{int("".join(map(str, row)), 2):04x}' for row in mask.astype(int))


@pytest.mark.parametrize(
    ('seed', 'count', 'rows'),
    [
        (0, 75, '0000 0000 0000 3f20 3f00 3f00 3fc0 3fc0 3fc0 3fc0 3f00 3f00 3f00 3f00'),
        (2, 75, '0fe1 0fe0 0ff8 0ff8 03f8 003e 003e 003e 003e 003e 003e 003e 0000 0000'),
        (5, 73, '0000 0000 0006 000e 3e0e 3e0e 3e0e 3e0e 3e0e 3e0e 3e00 3e00 3e00 3e00'),
    ],
)
def test_masks_of_v1(seed, count, rows):
    random.seed(seed)
    mask = blockwise_mask((14, 14), 75)
    assert in_hex(mask) == rows
    assert mask.sum() == count


def test_mask_of_v2_is_that_of_v1_filled_up():
    random.seed(5)
    np.random.seed(5)
    mask = exact_count(blockwise_mask((14, 14), 75), 75)
    assert in_hex(mask) == '0000 0000 0006 000e 3e0e 3f4e 3e0e 3e0e 3e0e 3e0e 3e00 3e00 3e00 3e00'


@pytest.mark.parametrize(('seed', 'box'), [(0, (3, 5, 375, 435)), (1, (195, 32, 178, 218)), (2, (0, 1, 376, 486))])
def test_crop_boxes(seed, box):
    random.seed(seed)
    assert random_crop_box((381, 500), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)) == box


def learning_rates(schedule, epoch_length, layer_scale=1.0):
    """Learning rate at every iteration of a recipe, by mmengine's own schedulers, in a group scaled for its layer."""
    cfg = Config.fromfile(SCHEDULES / schedule)
    lr = cfg.optim_wrapper.optimizer.lr * layer_scale
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(item), default_args=dict(optimizer=optimizer, epoch_length=epoch_length))
        for item in cfg.param_scheduler
    ]
    optimizer.step()
    rates = []
    for _ in range(cfg.max_epochs * epoch_length):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            scheduler.step()
    return rates


def test_learning_rate_of_pretraining():
    rates = learning_rates('adamw_mim.py', epoch_length=625)
    assert rates[0] < 1e-12  # officially 0
    assert rates[1] == pytest.approx(2.40038e-7, rel=1e-5)
    assert rates[6249] == pytest.approx(1.5e-3, rel=1e-9)
    assert rates[6250] == pytest.approx(1.5e-3, rel=1e-9)
    assert rates[250_000] == pytest.approx(7.69812e-4, rel=1e-5)
    assert rates[-1] == pytest.approx(1.0000000015e-5, rel=1e-7)


def test_learning_rate_of_fine_tuning_and_its_floor_scale_with_the_layer():
    for layer_scale in (1.0, 0.65**13):
        rates = learning_rates('adamw_finetune.py', epoch_length=1251, layer_scale=layer_scale)
        assert rates[0] < 1e-12
        assert rates[25_019] == pytest.approx(4e-3 * layer_scale, rel=1e-9)
        assert rates[25_020] == pytest.approx(4e-3 * layer_scale, rel=1e-9)
        assert rates[-1] == pytest.approx(1.00000099e-6 * layer_scale, rel=1e-7)


def test_step_of_the_quantizer():
    module = NormEMAQuantizer(8, 4, kmeans_init=False)
    module.codebook.copy_(F.normalize(torch.sin(0.7 * torch.arange(32.0)).view(8, 4), dim=1))
    z = torch.sin(0.9 * torch.arange(72.0) + 0.5).view(2, 4, 3, 3).requires_grad_()
    vectors, ids, loss = module(z.flatten(2).transpose(1, 2))
    vectors = vectors.transpose(1, 2).unflatten(2, (3, 3))
    (loss + (0.01 * torch.arange(72.0).view_as(vectors) * vectors).sum()).backward()
    assert ids.flatten().tolist() == [3, 3, 4, 4, 2, 0, 3, 3, 3, 3, 4, 4, 2, 0, 3, 3, 3, 4]
    found = [loss, *vectors[0, :, 0, 0], *module.codebook[0], *z.grad[0, :, 0, 0]]
    expected = [
        *(0.2799194, 0.6478074, 0.2418846, -0.2778004, -0.6668315),
        *(-0.0061325, 0.4442661, 0.6786040, 0.5848818),
        *(0.0338236, 0.1400887, 0.0654122, 0.1969700),
    ]
    torch.testing.assert_close(torch.stack(found), torch.tensor(expected), rtol=0, atol=5e-7)
    assert module.cluster_size.tolist() == pytest.approx([0.02, 0, 0.02, 0.09, 0.05, 0, 0, 0])
