import pytest
import torch
from builders import tiny_classifier, tiny_mim
from mmengine.optim import build_optim_wrapper
from test_checkpoint.peers import tiny_segmentor
from torch import nn

RATE = 0.5  # its powers are exact

# Name of a parameter (or the start of it), the power of the rate that its learning rate has in a model of four blocks,
# and whether it is decayed (unilm:beit/optim_factory.py).
STEM = {
    'backbone.cls_token': (5, False),
    'backbone.mask_token': (5, True),
    'backbone.pos_embed': (5, False),
    'backbone.patch_embed.proj.weight': (5, True),
    'backbone.patch_embed.proj.bias': (5, False),
}
IN_BLOCK = {
    'norm1.weight': False,
    'norm1.bias': False,
    'attn.q_bias': False,
    'attn.v_bias': False,
    'attn.qkv.weight': True,
    'attn.proj.weight': True,
    'attn.proj.bias': False,
    'norm2.weight': False,
    'norm2.bias': False,
    'mlp.fc1.weight': True,
    'mlp.fc1.bias': False,
    'mlp.fc2.weight': True,
    'mlp.fc2.bias': False,
    'scale1.gamma': False,
    'scale2.gamma': False,
}
BLOCKS = {f'backbone.blocks.{i}.{name}': (4 - i, decays) for i in range(4) for name, decays in IN_BLOCK.items()}
HEAD = {'head.fc.weight': (0, True), 'head.fc.bias': (0, False)}
NORM = {'weight': (0, False), 'bias': (0, False)}


def build(model, paramwise_cfg=None, lr=1.0):
    optimizer = dict(type='AdamW', lr=lr, weight_decay=0.05)
    cfg = dict(
        type='mmbeit.AutocastOptimWrapper',
        optimizer=optimizer,
        constructor='mmbeit.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=paramwise_cfg or dict(layer_decay_rate=RATE),
    )
    return build_optim_wrapper(model, cfg)


def settings(model, wrapper):
    """Learning rate and weight decay of every parameter by name, each in one group only."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [
        (names[id(parameter)], (group['lr'], group['weight_decay']))
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def expected(table, lr=1.0):
    return {name: (lr * RATE**power, 0.05 * decays) for name, (power, decays) in table.items()}


def test_groups_of_fine_tuning_with_a_table_per_block():
    model = tiny_classifier(abs_pos_embed=True, mask_token=True)
    tables = {f'backbone.rel_pos_bias.{i}.table': (4 - i, True) for i in range(4)}
    norm = {f'backbone.fc_norm.{name}': value for name, value in NORM.items()}
    assert settings(model, build(model)) == expected({**STEM, **BLOCKS, **tables, **norm, **HEAD})


def test_groups_of_pretraining_with_a_shared_table():
    model = tiny_mim(abs_pos_embed=True)
    table = {'backbone.rel_pos_bias.0.table': (0, True)}
    norm = {f'head.norm.{name}': value for name, value in NORM.items()}
    wanted = expected({**STEM, **BLOCKS, **table, **norm, **HEAD}, lr=1.5e-3)
    assert settings(model, build(model, lr=1.5e-3)) == wanted


def conv(name):
    return {f'{name}.conv.weight': (0, True), f'{name}.bn.weight': (0, False), f'{name}.bn.bias': (0, False)}


def with_bias(name):
    return {f'{name}.weight': (0, True), f'{name}.bias': (0, False)}


def test_groups_of_segmentation():
    """Pyramid and heads learn at the full rate. Officially the class token is decayed there: the list of those that
    are not has it without the prefix that its name has (unilm:beit2/semantic_segmentation/mmcv_custom)."""
    pytest.importorskip('mmseg', reason='needs onedl-mmsegmentation, the extra `seg`')
    model = tiny_segmentor()
    stem = {name: STEM[name] for name in STEM if 'mask_token' not in name and 'pos_embed' not in name}
    stem['backbone.cls_token'] = (5, True)
    tables = {f'backbone.rel_pos_bias.{i}.table': (4 - i, True) for i in range(4)}
    names = ('upsample_4x.0', 'upsample_4x.3', 'upsample_2x.0')
    neck = {key: value for name in names for key, value in with_bias(f'neck.{name}').items()}
    neck.update({'neck.upsample_4x.1.weight': (0, False), 'neck.upsample_4x.1.bias': (0, False)})
    names = [f'psp_modules.{i}.1' for i in range(4)] + [
        f'{part}_convs.{i}' for part in ('lateral', 'fpn') for i in '012'
    ]
    names += ['bottleneck', 'fpn_bottleneck']
    decoder = {key: value for name in names for key, value in conv(f'decode_head.{name}').items()}
    heads = {
        **conv('auxiliary_head.convs.0'),
        **with_bias('auxiliary_head.conv_seg'),
        **with_bias('decode_head.conv_seg'),
    }
    found = settings(model, build(model, dict(layer_decay_rate=RATE, no_decay=())))
    assert found == expected({**stem, **BLOCKS, **tables, **neck, **decoder, **heads})


def test_there_is_one_group_for_each_rate_and_decay():
    groups = build(tiny_classifier()).optimizer.param_groups
    assert len({(group['lr'], group['weight_decay']) for group in groups}) == len(groups) == 12


def test_without_layer_decay_only_weight_decay_tells_groups_apart():
    model = tiny_mim()
    groups = build(model, dict(layer_decay_rate=1.0)).optimizer.param_groups
    assert {group['lr'] for group in groups} == {1.0}
    decays = {name: decay > 0 for name, (_, decay) in settings(model, build(model)).items()}
    assert decays['backbone.mask_token'] and not decays['backbone.cls_token']


def test_parameters_can_be_spared_weight_decay_by_name():
    model = tiny_classifier()
    found = settings(model, build(model, dict(no_decay=('table',))))
    assert found['backbone.rel_pos_bias.0.table'][1] == 0
    assert found['backbone.cls_token'][1] == 0.05


def test_frozen_parameters_are_in_no_group():
    model = tiny_classifier(frozen_stages=2)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert settings(model, build(model)).keys() == trainable
    assert 'backbone.blocks.1.attn.qkv.weight' not in trainable


def test_a_wrapped_model_has_the_groups_of_the_model():
    model = tiny_classifier()
    assert settings(model, build(nn.DataParallel(model))) == settings(model, build(model))


def test_a_model_without_a_backbone_has_two_groups():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    found = settings(model, build(model, dict(layer_decay_rate=1.0)))
    assert found == {'0.weight': (1, 0.05), '0.bias': (1, 0), '1.weight': (1, 0), '1.bias': (1, 0)}


def test_layer_decay_of_a_backbone_without_layers_is_refused():
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    with pytest.raises(ValueError, match='Linear has no get_layer_depth, which layer_decay_rate needs'):
        build(model)


def test_unknown_settings_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown keys \['decay_rate'\] .* \('layer_decay_rate', 'no_decay', "):
        build(tiny_classifier(), dict(decay_rate=0.5))


def test_the_wrapper_steps_every_group_at_its_own_rate():
    """SGD moves each weight by the rate times its gradient, here one."""
    model = tiny_classifier()
    cfg = dict(
        optimizer=dict(type='SGD', lr=1.0),
        constructor='mmbeit.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=RATE),
    )
    wrapper = build_optim_wrapper(model, cfg)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    wrapper.update_params(sum(parameter.sum() for parameter in model.parameters()))
    for name, power in (('backbone.cls_token', 5), ('backbone.blocks.1.mlp.fc1.weight', 3), ('head.fc.weight', 0)):
        torch.testing.assert_close(model.get_parameter(name), before[name] - RATE**power)
