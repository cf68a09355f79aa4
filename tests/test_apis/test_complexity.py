import warnings
from math import prod

import pytest
import torch
from builders import TINY, tiny_beit
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config

from mmbeit.apis.complexity import build_on_meta, complexity, image_size


def tiny_config(**backbone) -> Config:
    return Config(
        dict(
            default_scope='mmpretrain',
            data_preprocessor=dict(num_classes=5),
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='mmbeit.BEiT', arch=TINY, img_size=32, patch_size=8, **backbone),
                head=dict(type='LinearClsHead', num_classes=5, in_channels=24),
            ),
        )
    )


def attention_flops(inputs: list, outputs: list) -> int:
    query, key, value = (value.type().sizes() for value in inputs[:3])
    return prod(query) * key[-2] + prod(query[:-1]) * prod(value[-2:])


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('rel_pos_bias', ['shared', 'per_block', None])
def test_flops_against_the_analyser_of_mmengine(rel_pos_bias):
    backbone = tiny_beit(rel_pos_bias=rel_pos_bias).requires_grad_(False)
    analyser = FlopAnalyzer(backbone, (torch.zeros(1, 3, 32, 32),))
    analyser.set_op_handle('aten::scaled_dot_product_attention', attention_flops)
    analyser.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings('none')
    assert complexity(backbone, (32, 32)).num_flops == analyser.total()


def test_flops_by_hand():
    cost = complexity(build_on_meta(tiny_config()), (32, 32))
    tokens, dim, depth = 17, 24, 4
    assert cost.flops == {
        'addmm': depth * tokens * (3 + 1 + 4 + 4) * dim**2 + 16 * dim * 3 * 8**2,
        'bmm': depth * 2 * tokens**2 * dim,
        'native_layer_norm': 5 * (2 * depth * tokens * dim + dim),
    }
    assert list(cost.flops.values()) == sorted(cost.flops.values(), reverse=True)
    assert cost.num_flops == sum(cost.flops.values())


def test_counts_are_the_same_with_and_without_memory():
    cfg = tiny_config()
    with torch.device('cpu'):
        model = build_on_meta(cfg).to_empty(device='cpu')
    assert complexity(model, (32, 32)) == complexity(build_on_meta(cfg), (32, 32))


def test_parameters_are_counted_by_part():
    model = build_on_meta(tiny_config())
    cost = complexity(model, (32, 32))
    assert cost.parameters == {'backbone': sum(p.numel() for p in model.backbone.parameters()), 'head': 5 * 25}
    assert cost.num_parameters == sum(p.numel() for p in model.parameters())


def test_resizing_the_position_tables_is_not_counted():
    shared, none = (build_on_meta(tiny_config(rel_pos_bias=bias)) for bias in ('shared', None))
    assert complexity(shared, (64, 40)).flops == complexity(none, (64, 40)).flops


def test_model_without_a_memory_footprint_stays_so():
    model = build_on_meta(tiny_config())
    complexity(model, (32, 32))
    assert {tensor.device.type for tensor in (*model.parameters(), *model.backbone.buffers())} == {'meta'}
    assert not model.training


def test_counting_is_silent(capfd):
    model = build_on_meta(tiny_config())
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        complexity(model, (32, 32))
    assert capfd.readouterr() == ('', '')


def test_image_size():
    assert image_size(tiny_config()) == (32, 32)
    assert image_size(Config(dict(model=dict(backbone=dict(img_size=[32, 48]))))) == (32, 48)
    with pytest.raises(ValueError, match='img_size'):
        image_size(Config(dict(model=dict(type='mmbeit.DiscreteVAE'))))
