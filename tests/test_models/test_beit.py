import math
import shutil

import pytest
import torch
from builders import TINY, randomize, tiny_backbone_cfg, tiny_beit
from mmengine.registry import MODELS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmbeit.layers import attention, kernels
from mmbeit.layers.block import Block, DropPath
from mmbeit.models import BEiT

POSITIONS = [
    dict(rel_pos_bias='shared'),
    dict(rel_pos_bias='per_block'),
    dict(rel_pos_bias=None, abs_pos_embed=True),
    dict(rel_pos_bias='per_block', abs_pos_embed=True),
]


def images(*size, batch=2):
    return torch.randn(batch, 3, *size)


# ---- image size ----


@pytest.mark.parametrize('size', [(48, 48), (24, 24), (32, 56), (40, 16)])
@pytest.mark.parametrize('positions', POSITIONS)
def test_running_at_another_size_equals_a_model_rebuilt_for_it(positions, size):
    model = tiny_beit(**positions)
    rebuilt = tiny_beit(**positions, img_size=size)
    rebuilt.load_state_dict(model.state_dict(), strict=True)
    x = images(*size)
    torch.testing.assert_close(model(x)[-1], rebuilt(x)[-1], rtol=1e-5, atol=1e-5)


def test_gradients_reach_the_tables_at_another_size():
    model = tiny_beit(rel_pos_bias='shared', abs_pos_embed=True)
    model(images(48, 24))[-1].sum().backward()
    for parameter in (model.rel_pos_bias[0].table, model.pos_embed):
        assert parameter.grad.abs().sum() > 0


def test_shared_table_of_a_checkpoint_starts_every_block():
    shared, per_block = tiny_beit(rel_pos_bias='shared'), tiny_beit(rel_pos_bias='per_block')
    per_block.load_state_dict(shared.state_dict(), strict=True)
    x = images(32, 32)
    torch.testing.assert_close(per_block(x)[-1], shared(x)[-1], rtol=1e-5, atol=1e-5)
    tables = [bias.table for bias in per_block.rel_pos_bias]
    with torch.no_grad():
        tables[0].zero_()
    assert tables[1].abs().sum() > 0  # copies, not one table


def test_shared_table_of_another_size_starts_every_block():
    shared, per_block = tiny_beit(rel_pos_bias='shared', img_size=(24, 40)), tiny_beit(rel_pos_bias='per_block')
    per_block.load_state_dict(shared.state_dict(), strict=True)
    x = images(32, 32)
    torch.testing.assert_close(per_block(x)[-1], shared(x)[-1], rtol=1e-5, atol=1e-5)


def test_absolute_embedding_of_a_grid_that_is_not_square_is_refused_at_another_size():
    source, target = tiny_beit(img_size=(24, 40), abs_pos_embed=True), tiny_beit(abs_pos_embed=True)
    with pytest.raises(ValueError, match='pos_embed holds 15 patches, which is not a square grid'):
        target.load_state_dict(source.state_dict())


# ---- outputs ----


def test_every_out_type_is_a_view_of_the_raw_tokens():
    raw = tiny_beit(out_type='raw')
    x = images(32, 24)
    tokens = raw(x)[-1]
    assert tokens.shape == (2, 1 + 4 * 3, 24)
    outs = {}
    for out_type in ('cls_token', 'featmap', 'avg_featmap'):
        model = tiny_beit(out_type=out_type)
        model.load_state_dict(raw.state_dict(), strict=False)
        outs[out_type] = model(x)[-1]
    torch.testing.assert_close(outs['cls_token'], tokens[:, 0])
    for row in range(4):
        for column in range(3):
            assert torch.equal(outs['featmap'][:, :, row, column], tokens[:, 1 + 3 * row + column])
    mean = tokens[:, 1:].mean(dim=1)
    normed = nn.functional.layer_norm(mean, (24,), model.fc_norm.weight, model.fc_norm.bias, eps=1e-6)
    torch.testing.assert_close(outs['avg_featmap'], normed)


def test_of_the_class_token_alone_the_last_block_computes_nothing_else():
    model, sizes = tiny_beit(out_type='cls_token', out_indices=(1, 3)), []
    for block in model.blocks:
        block.mlp.register_forward_hook(lambda module, args, out: sizes.append(tuple(out.shape[:2])))
    middle, last = model(images(32, 24))
    assert middle.shape == last.shape == (2, 24) and sizes == [(2, 13)] * 3 + [(2, 1)]


@pytest.mark.parametrize('size', [(30, 47), (32, 41), (9, 8), (1, 1)])
def test_maps_of_any_image_cover_it_without_the_padding(size):
    model = tiny_beit(out_type='featmap', out_indices=(1, 3))
    x = images(*size)
    h, w = (math.ceil(side / 8) for side in size)
    padded = nn.functional.pad(x, (0, 8 * w - size[1], 0, 8 * h - size[0]))
    # What lies between the centres of the outermost cells of the image, in units of the padded one.
    y, x_ = ((torch.arange(n) + 0.5) * 2 * side / (8 * n) / n - 1 for n, side in ((h, size[0]), (w, size[1])))
    at = torch.stack(torch.meshgrid(x_, y, indexing='xy'), dim=-1).expand(2, -1, -1, -1)
    for found, of_padded in zip(model(x), model(padded), strict=True):
        assert found.shape == (2, 24, h, w)
        expected = nn.functional.grid_sample(of_padded, at, padding_mode='border', align_corners=False)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('out_type', ['raw', 'cls_token', 'avg_featmap'])
def test_only_maps_are_made_of_images_that_are_no_whole_number_of_patches(out_type):
    with pytest.raises(ValueError, match='32 x 30 pixels are not a whole number of patches of 8'):
        tiny_beit(out_type=out_type)(images(32, 30))


def test_out_indices_select_blocks_and_only_the_last_block_is_normalised():
    model = tiny_beit(out_type='raw', final_norm=True, out_indices=(0, 2, -1))
    recorded = {}
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _, __, out, i=i: recorded.update({i: out}))
    outs = model(images(32, 32))
    assert len(outs) == 3
    assert torch.equal(outs[0], recorded[0])
    assert torch.equal(outs[1], recorded[2])
    assert torch.equal(outs[2], model.norm(recorded[3]))
    assert not torch.equal(outs[2], recorded[3])


def test_blocks_after_the_last_out_index_are_not_run():
    model = tiny_beit(out_indices=1)
    ran = []
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    model(images(32, 32))
    assert ran == [0, 1]


# ---- masking ----


def test_pixels_of_masked_patches_do_not_influence_the_output():
    model = tiny_beit(mask_token=True, out_type='raw')
    x, mask = images(32, 32), torch.rand(2, 16) < 0.4
    pixels = mask.view(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    out = model(x, mask)[-1]
    torch.testing.assert_close(model(torch.where(pixels, torch.randn_like(x), x), mask)[-1], out)
    changed = model(torch.where(pixels, x, torch.randn_like(x)), mask)[-1]
    assert (changed - out).abs().max() > 0.1


def test_masked_patches_still_know_where_they_are():
    model = tiny_beit(mask_token=True, out_type='raw', rel_pos_bias=None, abs_pos_embed=True)
    tokens = model(images(32, 32), torch.ones(2, 16, dtype=torch.bool))[-1][:, 1:]
    torch.testing.assert_close(tokens[0], tokens[1])  # the last bit may depend on the place in the batch
    assert (tokens[0, 0] - tokens[0, 1:]).abs().amax(dim=1).min() > 1e-3


def test_an_empty_mask_is_no_mask():
    model = tiny_beit(mask_token=True)
    x = images(32, 32)
    assert torch.equal(model(x, torch.zeros(2, 16, dtype=torch.bool))[-1], model(x)[-1])


# ---- stochastic depth, frozen stages, checkpointing ----


@pytest.mark.parametrize('rate', [0.1, 0.5])
def test_drop_path_drops_whole_samples_at_its_rate_and_preserves_the_expectation(rate):
    x = torch.rand(20_000, 2, 3) + 1
    kept = DropPath(rate).train()(len(x), x.device)
    out = kept.add(torch.zeros_like(x), kept.of(x))
    dropped = (out == 0).flatten(1)
    assert torch.equal(dropped.any(dim=1), dropped.all(dim=1))
    assert dropped[:, 0].float().mean().item() == pytest.approx(rate, abs=0.015)
    torch.testing.assert_close(out[~dropped[:, 0]], x[~dropped[:, 0]] / (1 - rate))


@pytest.mark.parametrize('silent', ['scale1', 'scale2'])
def test_each_branch_of_a_block_is_dropped_once(silent):
    block = randomize(Block(24, 3, 96, layer_scale=0.1, drop_path=0.3)).train()
    getattr(block, silent).gamma.data.zero_()
    x = torch.randn(10_000, 2, 24)
    unchanged = (block(x) == x).flatten(1).all(dim=1).float().mean()
    assert unchanged.item() == pytest.approx(0.3, abs=0.02)


def test_the_two_branches_of_a_block_are_dropped_independently():
    block = randomize(Block(24, 3, 96, drop_path=0.5)).train()
    x = torch.randn(10_000, 2, 24)
    unchanged = (block(x) == x).flatten(1).all(dim=1).float().mean()
    assert unchanged.item() == pytest.approx(0.25, abs=0.02)


def test_drop_path_rate_grows_linearly_from_zero_and_does_nothing_in_eval_mode():
    model = tiny_beit(drop_path_rate=0.3)
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
    plain = tiny_beit()
    plain.load_state_dict(model.state_dict())
    x = images(32, 32)
    assert torch.equal(model(x)[-1], plain(x)[-1])


STEM = {'cls_token', 'mask_token', 'pos_embed', 'patch_embed'}
FROZEN = {
    -1: set(),
    0: STEM,
    2: STEM | {'blocks.0', 'blocks.1', 'rel_pos_bias.0', 'rel_pos_bias.1'},
    4: STEM | {'norm', *(f'{part}.{i}' for part in ('blocks', 'rel_pos_bias') for i in range(4))},
}


@pytest.mark.parametrize('stages', FROZEN)
@pytest.mark.parametrize('rel_pos_bias', ['shared', 'per_block'])
def test_frozen_stages_freeze_these_parameters_and_keep_these_modules_in_eval_mode(stages, rel_pos_bias):
    model = tiny_beit(
        rel_pos_bias=rel_pos_bias, abs_pos_embed=True, mask_token=True, final_norm=True, frozen_stages=stages
    )
    model.train()
    frozen = tuple(f'{name}.' for name in FROZEN[stages])
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != f'{name}.'.startswith(frozen), name
    for name, module in model.named_modules():
        if name and not isinstance(module, nn.ModuleList) and name != 'rel_pos_bias':
            assert module.training != f'{name}.'.startswith(frozen), name


def test_frozen_stages_give_the_same_output_after_a_step_and_the_others_do_not():
    model = tiny_beit(out_type='raw', frozen_stages=2, out_indices=(1, 3), drop_path_rate=0.5, with_cp=True)
    model.train()
    x = images(32, 32)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = model(x)
    before[1].square().mean().backward()
    optimizer.step()
    after = model(x)
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1], before[1])


def test_recomputing_activations_changes_neither_outputs_nor_gradients():
    results = []
    plain, thrifty = tiny_beit(drop_path_rate=0.5), tiny_beit(drop_path_rate=0.5, with_cp=True)
    thrifty.load_state_dict(plain.state_dict())
    x = images(32, 32, batch=8)
    calls = []
    thrifty.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    for model in (plain, thrifty):
        model.train()
        torch.manual_seed(1)
        out = model(x)[-1]
        out.square().sum().backward()
        results.append((out, {name: parameter.grad for name, parameter in model.named_parameters()}))
    assert len(calls) == 2  # forward, and again in the backward pass
    torch.testing.assert_close(*results)


# ---- layer ids, initialisation, sizes ----


@pytest.mark.parametrize('rel_pos_bias', ['shared', 'per_block'])
def test_layer_of_every_parameter(rel_pos_bias):
    model = tiny_beit(rel_pos_bias=rel_pos_bias, abs_pos_embed=True, mask_token=True, final_norm=True)
    expected = dict.fromkeys(('cls_token', 'mask_token', 'pos_embed', 'patch_embed'), 0)
    expected.update({f'blocks.{i}': i + 1 for i in range(4)}, norm=5, fc_norm=5)
    if rel_pos_bias == 'shared':
        expected['rel_pos_bias.0'] = 5
    else:
        expected.update({f'rel_pos_bias.{i}': i + 1 for i in range(4)})
    for name, _ in model.named_parameters():
        (depth,) = (depth for part, depth in expected.items() if f'{name}.'.startswith(f'{part}.'))
        assert model.get_layer_depth(name) == (depth, 6), name
        assert model.get_layer_depth(f'backbone.{name}', 'backbone.') == (depth, 6), name
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (5, 6)


WIDE = dict(embed_dims=96, num_layers=3, num_heads=4, feedforward_channels=384)


def initialised(**kwargs):
    model = randomize(BEiT(WIDE, img_size=32, patch_size=8, layer_scale=0.1, final_norm=True, **kwargs), std=3.0)
    for bias in model.rel_pos_bias:
        nn.init.zeros_(bias.table)
    for block in model.blocks:
        for parameter in (block.attn.q_bias, block.attn.v_bias):
            nn.init.zeros_(parameter)
    model.patch_embed.proj.reset_parameters()
    model.init_weights()
    return model


@pytest.mark.parametrize(('pretraining', 'std', 'largest'), [(True, 0.0108, 0.02), (False, 0.02, 0.15)])
def test_weights_are_drawn_as_officially(pretraining, std, largest):
    model = initialised(mask_token=pretraining, abs_pos_embed=True)
    drawn = {'cls_token': model.cls_token, 'pos_embed': model.pos_embed, 'mask_token': model.mask_token}
    if pretraining:
        drawn['patch_embed'] = model.patch_embed.proj.weight
    for i, block in enumerate(model.blocks, 1):
        rescaled = math.sqrt(2 * i)
        drawn[f'qkv {i}'] = block.attn.qkv.weight
        drawn[f'fc1 {i}'] = block.mlp.fc1.weight
        drawn[f'proj {i}'] = block.attn.proj.weight * rescaled
        drawn[f'fc2 {i}'] = block.mlp.fc2.weight * rescaled
    for name, weight in drawn.items():
        if weight is None:
            continue
        tolerance = 4 * std / math.sqrt(weight.numel())
        assert weight.mean().item() == pytest.approx(0, abs=tolerance), name
        assert weight.std().item() == pytest.approx(std, abs=tolerance), name
        assert weight.abs().max() <= largest * 1.0001, name
    assert (model.blocks[0].attn.qkv.weight.abs().max() > 0.06) != pretraining  # cut at one sigma, or not at all


@pytest.mark.parametrize('pretraining', [True, False])
def test_biases_tables_norms_and_layer_scales_start_as_officially(pretraining):
    torch.manual_seed(3)
    model = BEiT(WIDE, img_size=32, patch_size=8, layer_scale=0.1, final_norm=True, mask_token=pretraining)
    model.init_weights()
    for name, parameter in model.named_parameters():
        if name.endswith(('gamma',)):
            assert (parameter == 0.1).all(), name
        elif 'norm' in name and name.endswith('weight'):
            assert (parameter == 1).all(), name
        elif name.endswith(('table', 'bias')) and (pretraining or 'patch_embed' not in name):
            assert (parameter == 0).all(), name
        else:
            assert parameter.std() > 0, name
    if not pretraining:  # PyTorch's own: uniform within 1 / sqrt(fan in)
        limit = 1 / math.sqrt(3 * 8 * 8)
        for parameter in model.patch_embed.proj.parameters():
            assert limit * 0.9 < parameter.abs().max() <= limit


def test_init_weights_redraws_linear_layers_and_norms():
    model = initialised()
    assert model.blocks[0].attn.qkv.weight.abs().max() < 0.15
    assert (model.blocks[0].norm1.weight == 1).all() and (model.blocks[0].mlp.fc1.bias == 0).all()


def test_pretrained_weights_survive_the_official_initialisation(tmp_path):
    source = tiny_beit(rel_pos_bias='shared', mask_token=True, out_type='raw')
    state = {f'backbone.{key}': value for key, value in source.state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'pretrained.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'pretrained.pth'), prefix='backbone.')
    model = MODELS.build(tiny_backbone_cfg(rel_pos_bias='per_block', out_type='raw', init_cfg=init_cfg))
    model.init_weights()
    model.eval()
    x = images(32, 32)
    torch.testing.assert_close(model(x)[-1], source(x)[-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('arch', 'img_size', 'patch_size', 'num_parameters'),
    [
        ('base', 224, 16, 86_530_984),
        ('base', 384, 16, 86_744_104),
        ('large', 224, 16, 304_430_568),
        ('large', 384, 16, 304_998_888),
        ('large', 512, 16, 305_674_728),
        ('24x544', 224, 16, 86_658_408),
        ('huge', 224, 14, 632_251_368),
        ('giant', 224, 14, 1_012_922_856),
    ],
)
def test_parameters_of_official_classifiers(arch, img_size, patch_size, num_parameters):
    with torch.device('meta'):
        backbone = BEiT(arch, img_size=img_size, patch_size=patch_size)
        head = nn.Linear(backbone.embed_dims, 1000)
    assert sum(p.numel() for module in (backbone, head) for p in module.parameters()) == num_parameters


@pytest.mark.parametrize(
    ('arch', 'early_layers', 'shared', 'num_parameters'),
    [
        ('base', None, True, 91_965_776),
        ('large', None, True, 311_534_016),
        ('base', 9, True, 106_143_056),
        ('base', 9, False, 112_444_240),
        ('large', 21, True, 336_728_512),
    ],
)
def test_parameters_of_official_pretraining_models(arch, early_layers, shared, num_parameters):
    cfg = dict(
        type='mmbeit.MaskedImageModeling',
        backbone=dict(type='mmbeit.BEiT', arch=arch, rel_pos_bias='shared', mask_token=True, out_type='raw'),
        neck=early_layers and dict(type='mmbeit.PatchAggregationNeck', early_layers=early_layers),
        head=dict(type='mmbeit.MIMHead', shared=shared),
    )
    with torch.device('meta'):
        model = MODELS.build(cfg)
    assert sum(p.numel() for p in model.parameters()) == num_parameters


# ---- wrong arguments ----


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='huge-ish'), r"unknown arch 'huge-ish': expected one of tiny, small, base, 24x544, large"),
        (dict(arch={**TINY, 'depth': 4}), r"arch has keys .*'depth'.* expected .*'num_layers'"),
        (dict(arch={**TINY, 'num_heads': 5}), r'embed_dims \(24\) must be divisible by num_heads \(5\)'),
        (dict(img_size=(32, 30)), r'img_size \(32, 30\) is not a whole number of patches of 8'),
        (dict(out_type='map'), r"out_type 'map' is not one of \('raw', 'cls_token', 'featmap', 'avg_featmap'\)"),
        (dict(rel_pos_bias='each'), r"rel_pos_bias 'each' is not one of \('shared', 'per_block', None\)"),
        (dict(out_indices=(0, 4)), r'out_indices \[0, 4\] do not fit the 4 blocks'),
        (dict(out_indices=-5), r'out_indices \[-5\] do not fit the 4 blocks'),
        (dict(frozen_stages=5), r'frozen_stages 5 is not between -1 and the 4 blocks'),
    ],
)
def test_wrong_arguments_are_refused_by_value(kwargs, message):
    with pytest.raises(ValueError, match=message):
        tiny_beit(**kwargs)


def test_wrong_inputs_are_refused_with_numbers():
    model = tiny_beit(mask_token=True)
    with pytest.raises(ValueError, match='32 x 36 pixels are not a whole number of patches of 8'):
        model(images(32, 36))
    with pytest.raises(ValueError, match=r'mask has shape \(2, 15\), the patches have \(2, 16\)'):
        model(images(32, 32), torch.zeros(2, 15, dtype=torch.bool))
    with pytest.raises(ValueError, match='built without a mask token: give it mask_token=True'):
        tiny_beit()(images(32, 32), torch.zeros(2, 16, dtype=torch.bool))


# ---- large images ----


class Largest(TorchDispatchMode):
    """Most elements that a result of any operation has memory for."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize('rel_pos_bias', ['per_block', 'shared'])
@pytest.mark.parametrize('size', [(32, 32), (48, 80), (160, 96)])
@torch.no_grad()
def test_rows_of_biases_give_what_whole_ones_give(rel_pos_bias, size, monkeypatch):
    model, images = tiny_beit(rel_pos_bias=rel_pos_bias, out_type='raw').eval(), torch.randn(2, 3, *size)
    expected = model(images)
    monkeypatch.setattr(kernels, 'MAX_KEPT', 0)
    for max_chunk in (1, 5000, 2**25):
        monkeypatch.setattr(attention, 'MAX_CHUNK', max_chunk)
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile has no compiler here')
@pytest.mark.parametrize('rel_pos_bias', ['per_block', 'shared'])
@torch.no_grad()
def test_biases_looked_up_in_their_table_give_what_whole_ones_give(rel_pos_bias, set_kernel):
    model = tiny_beit(rel_pos_bias=rel_pos_bias, out_type='raw').eval()
    sizes = [(32, 32), (48, 80)]
    for i, size in enumerate(2 * sizes):
        images = torch.randn(2, 3, *size)
        expected = model(images)
        set_kernel('flex')
        with torch._dynamo.config.patch(error_on_recompile=i >= len(sizes)):
            torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
        assert {block.attn.kernel for block in model.blocks} == {'flex'}
        set_kernel('auto')


@torch.no_grad()
def test_nothing_of_the_size_of_all_pairs_exists_for_a_large_image(monkeypatch):
    model = tiny_beit(out_type='raw').eval()
    monkeypatch.setattr(kernels, 'MAX_KEPT', 0)
    monkeypatch.setattr(attention, 'MAX_CHUNK', 1)
    largest = []
    for side in (160, 320):
        with Largest() as seen:
            model(torch.randn(1, 3, side, side))
        largest.append(seen.numel)
    num_tokens = 1 + (320 // 8) ** 2
    assert largest[1] < num_tokens**2 / 4  # a row of the grid times all tokens, for three heads
    monkeypatch.setattr(kernels, 'MAX_KEPT', 2**40)
    with Largest() as seen:
        model(torch.randn(1, 3, 320, 320))
    assert seen.numel >= 3 * num_tokens**2
