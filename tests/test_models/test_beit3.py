import math
from functools import partial

import pytest
import torch
from builders import randomize
from builders_beit3 import NUM_PATCHES, SIZES, TINY, backbone_cfg, images, task_cfg, texts, tiny_beit3
from mmengine.registry import MODELS

from mmbeit.engine.layer_decay import LayerDecayOptimWrapperConstructor
from mmbeit.layers.attn_bias import caption_bias
from mmbeit.layers.embeddings import remove_padding
from mmbeit.models import BEiT3

close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
exact = partial(torch.testing.assert_close, rtol=0, atol=1e-12)


def joined(out):
    return torch.cat([x for x in out[:2] if x is not None], dim=1)


# ---- what does not change a result ----


@torch.no_grad()
def test_padding_does_not_change_results():
    model, x = tiny_beit3().double(), images().double()
    ids, padding = texts(7, 4)
    longer = torch.nn.functional.pad(ids, (0, 3), value=5)
    for pictures in (x, None):
        short, long = (
            model.encode(pictures, words, padding_mask=where)
            for words, where in ((ids, padding), (longer, torch.nn.functional.pad(padding, (0, 3), value=True)))
        )
        exact(long.text[:, :7][~padding], short.text[~padding])
        exact(long.vision, short.vision)
        alone = model.encode(None if pictures is None else x[1:], ids[1:, :4])
        exact(alone.text, short.text[1:, :4])


@torch.no_grad()
def test_batch_composition_does_not_change_results():
    model, x = tiny_beit3().double(), images(batch=3).double()
    ids, padding = texts(7, 4, 5)
    whole = model.encode(x, ids, padding_mask=padding)
    for i in range(3):
        one = model.encode(x[i : i + 1], ids[i : i + 1], padding_mask=padding[i : i + 1])
        exact(one.vision[0], whole.vision[i])
        exact(one.text[0], whole.text[i])


@torch.no_grad()
def test_in_captions_a_word_changes_neither_the_image_nor_what_comes_before():
    model, x = tiny_beit3().double(), images().double()
    ids, _ = texts(8, 8)
    bias = caption_bias(1 + NUM_PATCHES, 8, torch.float64)
    before = model.encode(x, ids, attn_bias=bias)
    ids[:, 5] += 1
    after = model.encode(x, ids, attn_bias=bias)
    exact(after.vision, before.vision)
    exact(after.text[:, :5], before.text[:, :5])
    assert (after.text[:, 5:] - before.text[:, 5:]).abs().amax(dim=2).min() > 1e-4


@torch.no_grad()
def test_encoding_with_a_cache_equals_encoding_at_once():
    model, x = tiny_beit3().double(), images().double()
    ids, _ = texts(8, 8)
    bias = caption_bias(1 + NUM_PATCHES, 8, torch.float64)
    expected = model.encode(x, ids, attn_bias=bias)
    first = model.encode(x, ids[:, :3], attn_bias=bias[..., :20, :20], cache=())
    second = model.encode(
        None, ids[:, 3:], attn_bias=bias[..., 20:, :], text_positions=torch.arange(3, 8), cache=first.cache
    )
    exact(torch.cat([first.text, second.text], dim=1), expected.text)
    exact(first.vision, expected.vision)
    assert second.vision is None and second.cache[0].key.shape == (2, 3, 25, 8)
    assert first.cache[0].key.shape == (2, 3, 20, 8)  # as it was
    assert expected.cache is None


@torch.no_grad()
def test_padding_of_a_continuation_is_its_own():
    model, x = tiny_beit3().double(), images().double()
    ids, padding = texts(6, 4)
    expected = model.encode(x, ids, padding_mask=padding, attn_bias=caption_bias(17, 6, torch.float64)).text
    first = model.encode(x, cache=())
    bias = caption_bias(17, 6, torch.float64)[..., 17:, :]
    out = model.encode(None, ids, padding_mask=padding, attn_bias=bias, cache=first.cache)
    exact(out.text[~padding], expected[~padding])


def test_a_cache_of_samples_that_were_dropped_is_refused():
    model = tiny_beit3(drop_path_rate=0.5).train()
    with pytest.raises(ValueError, match='a cache in training would lack the samples that drop path drops: call eval'):
        model.encode(images(), cache=())


# ---- modalities ----


@torch.no_grad()
def test_an_encoder_of_one_modality_is_the_part_of_the_whole():
    whole = tiny_beit3(mask_token=True)
    vision, text = tiny_beit3(modalities='vision', mask_token=True), tiny_beit3(modalities=('text',), mask_token=True)
    for model in (vision, text):
        model.load_state_dict(whole.state_dict(), strict=True)
    x, mask = images(), torch.rand(2, NUM_PATCHES) < 0.4
    assert torch.equal(vision.encode(x, mask=mask).vision, whole.encode(x, mask=mask).vision)
    ids, padding = texts(7, 4)
    assert torch.equal(
        text.encode(text_ids=ids, padding_mask=padding).text, whole.encode(text_ids=ids, padding_mask=padding).text
    )
    names = {key for key, _ in whole.named_parameters()}
    ours = {name: {key for key, _ in model.named_parameters()} for name, model in dict(v=vision, t=text).items()}
    assert ours['v'] | ours['t'] == names and not ours['v'] & ours['t']


def test_one_modality_gives_no_gradient_to_the_other():
    model, (ids, padding) = tiny_beit3(), texts(7, 4)
    for call, other in (
        (lambda: model.encode(images()).vision, 'text'),
        (lambda: model.encode(text_ids=ids, padding_mask=padding).text, 'vision'),
    ):
        model.zero_grad()
        call().square().sum().backward()
        for name, parameter in model.named_parameters():
            of_text = '.text.' in name or name.startswith('text_')
            assert (parameter.grad is None) == (of_text == (other == 'text')), name


def test_nothing_runs_on_no_tokens():
    model, ran = tiny_beit3(), []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    model.encode(images())
    assert not any('text' in name for name in ran)
    ran.clear()
    model.encode(text_ids=texts(5)[0])
    assert not any('vision' in name for name in ran) and 'patch_embed' not in ran


# ---- keep ----

KEEP = [dict(vision=1, text=0), dict(vision=1, text=1), dict(vision=0), dict()]


@pytest.mark.parametrize('keep', KEEP)
@pytest.mark.parametrize('final_norm', [True, False])
@torch.no_grad()
def test_kept_tokens_are_what_they_are_without_keep(keep, final_norm):
    model, x = tiny_beit3(final_norm=final_norm).double(), images().double()
    ids, padding = texts(7, 4)
    full, kept = (model.encode(x, ids, padding_mask=padding, keep=k) for k in (None, keep))
    for name in ('vision', 'text'):
        if keep.get(name, 1):
            exact(getattr(kept, name), getattr(full, name)[:, : keep.get(name)])
        else:
            assert getattr(kept, name) is None


@pytest.mark.parametrize('keep', KEEP)
@pytest.mark.parametrize('final_norm', [True, False])
def test_everything_but_what_is_frozen_as_unread_gets_a_gradient(keep, final_norm):
    model, (ids, padding) = tiny_beit3(final_norm=final_norm), texts(7, 4)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    model.freeze_unread(keep)
    joined(model.encode(images(), ids, padding_mask=padding, keep=keep)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
        frozen |= set() if parameter.requires_grad else {name}
    per_modality = 16 if final_norm else 14
    assert len(frozen) == per_modality * sum(keep.get(name) == 0 for name in ('vision', 'text'))


# ---- image size ----


@pytest.mark.parametrize('size', [(48, 48), (24, 24), (32, 56), (40, 16)])
@torch.no_grad()
def test_running_at_another_size_equals_a_model_rebuilt_for_it(size):
    model, rebuilt = tiny_beit3(), tiny_beit3(img_size=size)
    rebuilt.load_state_dict(model.state_dict(), strict=True)
    x, (ids, padding) = images(*size), texts(7, 4)
    close(model(x)[-1], rebuilt(x)[-1])
    close(model.encode(x, ids, padding_mask=padding)[:2], rebuilt.encode(x, ids, padding_mask=padding)[:2])


def test_positions_are_resized_as_officially_and_three_rows_are_kept():
    table = torch.arange(14.0).view(7, 2).repeat_interleave(12, dim=1)
    model = BEiT3(TINY, modalities='vision', img_size=24, patch_size=8)
    state = {**tiny_beit3(modalities='vision').state_dict(), 'pos_embed': table}
    del state['pos_grid']  # nobody else records it
    model.load_state_dict(state)
    assert torch.equal(model.pos_embed[:3], table[:3])
    expected = [[5.4792, 6.6528, 7.8264], [7.8264, 9, 10.1736], [10.1736, 11.3472, 12.5208]]
    torch.testing.assert_close(model.pos_embed[3:, 0].view(3, 3), torch.tensor(expected), rtol=0, atol=1e-4)


def test_positions_of_a_grid_that_is_not_square_are_resized_where_the_grid_is_recorded():
    source, target = tiny_beit3(img_size=(16, 64)), tiny_beit3(img_size=(64, 16))
    state = source.state_dict()
    target.load_state_dict(state)
    back = tiny_beit3(img_size=(16, 64))
    back.load_state_dict(target.state_dict())
    assert not torch.equal(target.pos_embed, source.pos_embed) and back.pos_embed.shape == source.pos_embed.shape
    del state['pos_grid']
    state['pos_embed'] = state['pos_embed'][:-1]
    with pytest.raises(ValueError, match='pos_embed holds 15 patches, which is not a square grid'):
        tiny_beit3().load_state_dict(state)


def test_gradients_reach_the_positions_at_another_size():
    model = tiny_beit3()
    model(images(48, 24))[-1].square().sum().backward()
    assert model.pos_embed.grad[2:].abs().sum(dim=1).min() > 0
    assert (model.pos_embed.grad[:2] == 0).all()


@torch.no_grad()
def test_tokens_of_a_text_know_their_places():
    model = tiny_beit3()
    ids = torch.full((1, 6), 7)
    out = model.encode(text_ids=ids).text[0]
    assert (out[1:] - out[0]).abs().amax(dim=1).min() > 1e-3
    places = torch.tensor([5, 4, 3, 2, 1, 0])
    close(model.encode(text_ids=ids, text_positions=places).text[0], out.flip(0))
    close(model.encode(text_ids=ids, text_positions=places[None]).text[0], out.flip(0))


# ---- features of images ----


@torch.no_grad()
def test_every_out_type_is_a_view_of_the_raw_tokens():
    raw = tiny_beit3(out_type='raw')
    x = images(32, 24)
    tokens = raw(x)[-1]
    assert tokens.shape == (2, 1 + 4 * 3, 24)
    outs = {}
    for out_type in ('cls_token', 'featmap', 'avg_featmap'):
        model = tiny_beit3(out_type=out_type)
        model.load_state_dict(raw.state_dict(), strict=False)
        outs[out_type] = model(x)[-1]
    torch.testing.assert_close(outs['cls_token'], tokens[:, 0])  # which the last block computes alone
    for row in range(4):
        for column in range(3):
            assert torch.equal(outs['featmap'][:, :, row, column], tokens[:, 1 + 3 * row + column])
    mean = tokens[:, 1:].mean(dim=1)
    normed = torch.nn.functional.layer_norm(mean, (24,), model.fc_norm.weight, model.fc_norm.bias, eps=1e-5)
    close(outs['avg_featmap'], normed)


@torch.no_grad()
def test_maps_of_any_image_cover_it_without_the_padding():
    model = tiny_beit3(out_type='featmap', out_indices=(0, -1))
    x = images(28, 22)
    padded = torch.nn.functional.pad(x, (0, 2, 0, 4))
    for found, of_padded in zip(model(x), model(padded), strict=True):
        assert found.shape == of_padded.shape == (2, 24, 4, 3)
        assert torch.equal(found, remove_padding(of_padded, (28, 22), 8))
        assert not torch.equal(found, of_padded)


@torch.no_grad()
def test_out_indices_select_blocks_and_only_the_last_block_is_normalised():
    model = tiny_beit3(out_indices=(0, -1))
    recorded, ran = {}, []
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _, __, out, i=i: recorded.update({i: out[0]['vision']}))
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    outs = model(images())
    assert torch.equal(outs[0], recorded[0])
    assert torch.equal(outs[1], model.norm({'vision': recorded[2]})['vision'])
    ran.clear()
    model.out_indices = (1,)
    model(images())
    assert ran == [0, 1]


@torch.no_grad()
def test_pixels_of_masked_patches_do_not_influence_the_output():
    model = tiny_beit3(mask_token=True)
    x, mask = images(), torch.rand(2, NUM_PATCHES) < 0.4
    pixels = mask.view(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    (out,), (same,) = model(x, mask), model(torch.where(pixels, torch.randn_like(x), x), mask)
    close(same, out)
    assert (model(torch.where(pixels, x, torch.randn_like(x)), mask)[-1] - out).abs().max() > 0.1


# ---- training ----


def test_recomputing_activations_changes_nothing():
    plain, thrifty = tiny_beit3(), tiny_beit3(with_cp=True)
    thrifty.load_state_dict(plain.state_dict())
    x, (ids, padding) = images(), texts(7, 4)
    for model in (plain, thrifty):
        joined(model.train().encode(x, ids, padding_mask=padding, keep=dict(vision=1))).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, msg=name)


def test_drop_path_rate_grows_linearly_from_zero():
    model = tiny_beit3(drop_path_rate=0.3)
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0, 0.15, 0.3])


@torch.no_grad()
def test_half_precision_stays_near_full_precision():
    model, x, (ids, padding) = tiny_beit3(), images(), texts(7, 4)
    expected = joined(model.encode(x, ids, padding_mask=padding))
    with torch.autocast('cpu', torch.bfloat16):
        out = joined(model.encode(x, ids, padding_mask=padding))
    assert (out - expected).abs().mean() < 0.05
    half = joined(model.bfloat16().encode(x.bfloat16(), ids, padding_mask=padding))
    assert half.dtype == torch.bfloat16 and (half - expected).abs().mean() < 0.05


def test_depths_of_layer_decay():
    model = tiny_beit3(mask_token=True, out_type='avg_featmap')
    depths = {name: model.get_layer_depth(f'backbone.{name}', 'backbone.') for name, _ in model.named_parameters()}
    assert {total for _, total in depths.values()} == {5}
    for name, (depth, _) in depths.items():
        if name.startswith('blocks.'):
            assert depth == int(name.split('.')[1]) + 1
        else:
            assert depth == (4 if 'norm' in name else 0), name
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (4, 5)


def test_learning_rates_and_weight_decay_are_the_official_ones():
    """Of base with a layer decay of 0.65; positions of patches are not decayed, those of texts are."""
    with torch.device('meta'):
        model = MODELS.build(task_cfg('retrieval', arch='base', mask_token=True))
    constructor = LayerDecayOptimWrapperConstructor(
        dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05)), dict(layer_decay_rate=0.65)
    )
    groups = constructor.groups(model)
    found = {id(p): (group['lr'], group['weight_decay']) for group in groups for p in group['params']}
    expected = {
        'cls_token': (0.0036972, 0),
        'pos_embed': (0.0036972, 0),
        'mask_token': (0.0036972, 0.05),
        'text_embed.weight': (0.0036972, 0.05),
        'text_pos_embed': (0.0036972, 0.05),
        'patch_embed.proj.bias': (0.0036972, 0),
        'blocks.0.attn.k.text.weight': (0.0056880, 0.05),
        'blocks.11.mlp.vision.fc1.bias': (0.65, 0),
        'norm.text.weight': (1, 0),
    }
    for name, (lr, decay) in expected.items():
        assert found[id(model.backbone.get_parameter(name))] == pytest.approx((lr, decay), abs=1e-7), name
    assert found[id(model.head.logit_scale)] == (1, 0)
    assert found[id(model.head.proj['text'].weight)] == (1, 0.05)
    assert len(found) == len(list(model.parameters()))


# ---- initialisation ----


def initialised(**kwargs):
    model = MODELS.build(backbone_cfg(mask_token=True, **kwargs))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if 'patch_embed' not in name and 'token' not in name:
                parameter.fill_(7)
    model.init_weights()
    return dict(model.named_parameters())


def is_linear(name, parameter):
    return name.startswith('blocks.') and parameter.ndim == 2


def test_official_initialisation():
    """Linear layers within one sigma; positions with a standard deviation of 1; the gains of sub-LN are lost."""
    wide = dict(embed_dims=96, num_layers=2, num_heads=3, feedforward_channels=384)
    for name, parameter in initialised(arch=wide, vocab_size=500, num_text_positions=300).items():
        if is_linear(name, parameter):
            assert parameter.abs().max() <= 0.02, name
            assert parameter.std().item() == pytest.approx(0.0108, rel=0.05), name
        elif name in ('cls_token', 'mask_token'):
            assert (parameter == 0).all()
        elif name.endswith('pos_embed'):
            assert parameter.std().item() == pytest.approx(1, rel=0.1), name
        elif name == 'text_embed.weight':
            assert parameter.std().item() == pytest.approx(96**-0.5, rel=0.05)
        elif 'norm' in name:
            assert (parameter == float(name.endswith('weight'))).all(), name
        elif name.startswith('patch_embed'):
            assert parameter.abs().max() <= 1 / math.sqrt(3 * 8 * 8)
        else:
            assert name.endswith('bias') and (parameter == 0).all(), name


def test_initialisation_with_the_gains_of_sub_ln():
    arch = dict(embed_dims=96, num_layers=12, num_heads=3, feedforward_channels=384)
    gain = 1.78271
    for name, parameter in initialised(arch=arch, init='subln').items():
        if is_linear(name, parameter):
            xavier = math.sqrt(2 / sum(parameter.shape))
            expected = xavier if '.q.' in name or '.k.' in name else gain * xavier
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
        elif name.endswith('pos_embed'):
            assert parameter.std().item() == pytest.approx(1, rel=0.1), name
        elif 'token' in name:
            assert 0 < parameter.abs().max() < 0.12 and parameter.std().item() == pytest.approx(0.02, rel=0.3), name
        elif name.startswith('blocks'):
            assert (parameter == float('norm' in name and name.endswith('weight'))).all(), name


# ---- sizes ----


@pytest.mark.parametrize(
    ('arch', 'kwargs', 'num_parameters'),
    [
        ('base', dict(mask_token=True), 220_987_392),
        ('large', dict(mask_token=True), 672_702_464),
        ('giant', dict(mask_token=True, patch_size=14), 2_113_992_704),
        ('giant', dict(mask_token=True, patch_size=14, modalities='vision'), 1_011_810_816),
    ],
)
def test_parameters_of_official_encoders(arch, kwargs, num_parameters):
    with torch.device('meta'):
        model = BEiT3(arch, **kwargs)
    assert sum(p.numel() for p in model.parameters()) == num_parameters


@pytest.mark.parametrize(
    ('arch', 'numbers'),
    [
        ('base', (49_159_680, 592_128, 786_432, 4_727_808, 4_728_576, 14_191_104, 170_293_248, 3_072)),
        ('large', (65_546_240, 789_504, 1_048_576, 8_400_896, 8_401_920, 25_212_928, 605_110_272, 4_096)),
    ],
)
def test_parameters_of_the_parts_of_official_encoders(arch, numbers):
    with torch.device('meta'):
        model = BEiT3(arch, mask_token=True)
    stem = [*model.patch_embed.parameters(), model.cls_token, model.mask_token]
    block = model.blocks[0]
    parts = [
        model.text_embed.parameters(),
        stem,
        [model.text_pos_embed],
        block.attn.parameters(),
        block.mlp['text'].parameters(),
        block.parameters(),
        model.blocks.parameters(),
        model.norm.parameters(),
    ]
    assert tuple(sum(p.numel() for p in part) for part in parts) == numbers


@pytest.mark.parametrize(
    ('arch', 'img_size', 'num_parameters'),
    [
        ('base', 224, 152_832),
        ('base', 384, 444_672),
        ('base', 480, 693_504),
        ('large', 224, 203_776),
        ('large', 384, 592_896),
        ('large', 480, 924_672),
        ('large', 768, 2_362_368),
    ],
)
def test_parameters_of_official_positions(arch, img_size, num_parameters):
    with torch.device('meta'):
        assert BEiT3(arch, img_size=img_size).pos_embed.numel() == num_parameters


# ---- what is refused ----


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='huge-ish'), "unknown arch 'huge-ish'"),
        (dict(modalities='audio'), r"modalities \('audio',\) are not among \('vision', 'text'\)"),
        (dict(modalities=()), r"modalities \(\) are not among \('vision', 'text'\)"),
        (dict(out_type='map'), r"out_type 'map' is not one of \('raw', 'cls_token', 'featmap', 'avg_featmap'\)"),
        (dict(init='xavier'), r"init 'xavier' is not one of \('official', 'subln'\)"),
        (dict(img_size=(32, 30)), r'img_size \(32, 30\) is not a whole number of patches of 8'),
        (dict(out_indices=(0, 3)), r'out_indices \[0, 3\] do not fit the 3 blocks'),
    ],
)
def test_wrong_arguments_are_refused_by_value(kwargs, message):
    with pytest.raises(ValueError, match=message):
        BEiT3(**{**SIZES, **kwargs})


def test_wrong_inputs_are_refused_with_numbers():
    model = tiny_beit3()
    ids, padding = texts(7, 4)
    with pytest.raises(ValueError, match='nothing to encode'):
        model.encode()
    with pytest.raises(ValueError, match='1 images for 2 texts'):
        model.encode(images(batch=1), ids)
    with pytest.raises(ValueError, match='a text of 11 tokens, there are positions for 10'):
        model.encode(text_ids=torch.zeros(1, 11, dtype=torch.long))
    with pytest.raises(ValueError, match='32 x 36 pixels are not a whole number of patches of 8'):
        model(images(32, 36))
    with pytest.raises(ValueError, match='built without a mask token: give it mask_token=True'):
        model(images(), torch.zeros(2, NUM_PATCHES, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"built for modalities \('vision',\), without 'text'"):
        tiny_beit3(modalities='vision').encode(images(), ids)
    with pytest.raises(ValueError, match=r"built for modalities \('text',\), without 'vision'"):
        tiny_beit3(modalities='text')(images())
    randomize(model)
