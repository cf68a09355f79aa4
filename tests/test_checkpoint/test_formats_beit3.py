"""Conversion of every layout and kind of BEiT-3, there and back, and into the encoder."""

from functools import partial

import pytest
import torch
from builders import randomize
from builders_beit3 import NUM_PATCHES, TINY, backbone_cfg, images, texts, tiny_beit3
from mmengine.registry import MODELS
from test_checkpoint import official_beit3 as official

from mmbeit.checkpoint.formats import from_ours, recognize, to_ours
from mmbeit.checkpoint.load import CheckpointError
from mmbeit.checkpoint.save import save_state
from mmbeit.checkpoint.weights import load_into, load_state

close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
SMALL = dict(dim=24, depth=3, hidden=48, side=4, patch=8, vocab=20, positions=12)

OFFICIAL = {
    'beit3_backbone': (official.encoder, dict(), (491, 971)),
    'beit3_classifier': (official.classifier, dict(classes=7), (491, 971)),
    'beit3_vqa': (official.vqa, dict(classes=9), (497, 977)),
    'beit3_nlvr2': (official.nlvr2, dict(), (499, 979)),
    'beit3_captioner': (official.captioner, dict(), (493, 973)),
    'beit3_retrieval': (official.retrieval, dict(), (494, 974)),
    'beit3_pretraining': (official.pretraining, dict(codes=11), (495, 975)),
}


def small(kind, **kwargs):
    shapes, sizes, _ = OFFICIAL[kind]
    return {key: torch.randn(shape) * 0.3 for key, shape in shapes(**{**SMALL, **sizes, **kwargs}).items()}


def of_backbone(ours):
    return {key.removeprefix('backbone.'): value for key, value in ours.items() if key.startswith('backbone.')}


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in state.items())


# ---- official files ----


@pytest.mark.parametrize('kind', OFFICIAL)
def test_number_of_official_tensors(kind):
    shapes, _, numbers = OFFICIAL[kind]
    assert (len(shapes()), len(shapes(dim=1024, depth=24))) == numbers


@pytest.mark.parametrize('kind', OFFICIAL)
def test_official_files_go_there_and_back(kind):
    state = small(kind)
    ours, found = to_ours(state)
    assert (found.name, found.kind, found.exact) == ('official', kind, True)
    assert same(from_ours(ours, 'official')[0], state)
    assert recognize(ours).kind == kind and recognize(ours).name == 'mmbeit'


@pytest.mark.parametrize('kind', OFFICIAL)
def test_every_key_counts(kind):
    state = small(kind, depth=1)
    optional = ('beit3.vision_embed.mask_token',)
    for key in state:
        less = {name: value for name, value in state.items() if name != key}
        if key in optional:
            assert to_ours(less)[1].kind == kind
            continue
        with pytest.raises(CheckpointError) as error:
            to_ours(less)
        assert key in str(error.value) and '\n' not in str(error.value)


def test_an_unknown_key_and_a_wrong_shape_are_told():
    state = small('beit3_vqa')
    with pytest.raises(CheckpointError, match=r"official layout of kind 'beit3_vqa'.*1 unexpected: head.4.weight"):
        to_ours({**state, 'head.4.weight': torch.ones(1)})
    key = 'beit3.encoder.layers.1.ffn.B.ffn_layernorm.weight'
    with pytest.raises(CheckpointError, match=rf'1 wrong: {key} has shape \(47,\), expected \(48\)'):
        to_ours({**state, key: torch.ones(47)})


def test_official_files_without_their_text_are_read_and_written():
    """Nobody publishes them, but the official loader and timm's take them."""
    state = small('beit3_classifier')
    vision = {key: value for key, value in state.items() if '.B.' not in key and 'text_embed' not in key}
    ours, found = to_ours(vision)
    assert found.exact and found.kind == 'beit3_classifier'
    assert same(from_ours(ours, 'official')[0], vision)


@pytest.mark.parametrize('size', ['base', 'large'])
def test_official_sizes_are_ours(size):
    sizes = dict(base=dict(), large=dict(dim=1024, depth=24))[size]
    with torch.device('meta'):
        encoder = MODELS.build(dict(type='mmbeit.BEiT3', arch=size, mask_token=True))
        state = {key: torch.empty(shape) for key, shape in official.encoder(**sizes).items()}
    ours = of_backbone(to_ours(state)[0])
    expected = {key: value.shape for key, value in encoder.state_dict().items() if key != 'pos_grid'}
    assert {key: value.shape for key, value in ours.items()} == expected


# ---- into the encoder ----


@torch.no_grad()
def outputs(model):
    torch.manual_seed(1)
    ids, padding = texts(7, 4)
    return model.encode(images(), ids, padding_mask=padding)[:2]


@pytest.mark.parametrize('kind', [kind for kind in OFFICIAL if kind not in ('beit3_classifier', 'beit3_vqa')])
def test_an_encoder_by_itself_takes_official_names(kind, tmp_path):
    state = small(kind)
    expected = tiny_beit3()
    expected.load_state_dict(of_backbone(to_ours(state)[0]), strict=False)
    torch.save({'model': state}, tmp_path / 'weights.pth')
    for load in (
        lambda model: model.load_state_dict(state, strict=False),
        lambda model: load_into(model, tmp_path / 'weights.pth'),
    ):
        model = tiny_beit3()
        load(model)
        assert same(model.state_dict(), expected.state_dict())


@pytest.mark.parametrize('kwargs', [dict(), dict(final_norm=False), dict(modalities='vision', final_norm=False)])
def test_fine_tuning_starts_from_pretraining(kwargs, tmp_path):
    """With the final norm and without, with text and without."""
    state = small('beit3_pretraining')
    torch.save({'model': state}, tmp_path / 'weights.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'), prefix='backbone.')
    model = MODELS.build(backbone_cfg(init_cfg=init_cfg, **kwargs))
    model.init_weights()
    ours = of_backbone(to_ours(state)[0])
    for key, value in model.state_dict().items():
        assert key == 'pos_grid' or torch.equal(value, ours[key]), key


def test_the_norm_that_official_classifiers_lack_starts_fresh(tmp_path):
    torch.save({'model': small('beit3_classifier')}, tmp_path / 'weights.pth')
    model = MODELS.build(backbone_cfg())
    report = load_into(model, tmp_path / 'weights.pth')
    assert report.fresh == [f'norm.{m}.{p}' for m in ('vision', 'text') for p in ('weight', 'bias')]
    assert (model.norm['text'].weight == 1).all()


@pytest.mark.parametrize(('side', 'rows'), [(24, 579), (30, 903), (48, 2307)])
def test_pretraining_at_224_pixels_starts_fine_tuning_at_384_480_and_768(side, rows):
    shapes = official.encoder(**{**SMALL, 'side': 14, 'patch': 16})
    state = {key: torch.randn(shape) for key, shape in shapes.items()}
    model = MODELS.build(backbone_cfg(img_size=16 * side, patch_size=16, mask_token=True))
    model.load_state_dict(of_backbone(to_ours(state)[0]), strict=False)
    table = state['beit3.encoder.embed_positions.A.weight']
    assert len(model.pos_embed) == rows and torch.equal(model.pos_embed[:3], table[:3])
    patches = table[3:].view(1, 14, 14, 24).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(patches, (side, side), mode='bicubic', align_corners=False)
    close(model.pos_embed[3:], resized.permute(0, 2, 3, 1).reshape(-1, 24))
    assert torch.equal(model.text_pos_embed, state['beit3.encoder.embed_positions.B.weight'])


MISFITS = {
    'fewer blocks': (dict(arch={**TINY, 'num_layers': 2}), 'unexpected: blocks.2.attn.k.text.bias'),
    'more blocks': (dict(arch={**TINY, 'num_layers': 4}), 'missing: blocks.3.attn.k.text.bias'),
    'wider': (dict(arch={**TINY, 'embed_dims': 48}), r'blocks.0.attn.k.text.bias is \(24,\), expected \(48,\)'),
    'more words': (dict(vocab_size=30), r'text_embed.weight is \(20, 24\), expected \(30, 24\)'),
    'longer texts': (dict(num_text_positions=16), r'text_pos_embed is \(12, 24\), expected \(16, 24\)'),
    'smaller patches': (dict(patch_size=4), r'patch_embed.proj.weight is \(24, 3, 8, 8\), expected \(24, 3, 4, 4\)'),
}


@pytest.mark.parametrize(('kwargs', 'said'), MISFITS.values(), ids=MISFITS)
def test_an_encoder_that_does_not_fit_is_refused(tmp_path, kwargs, said):
    path = tmp_path / 'weights.pth'
    torch.save({'model': small('beit3_retrieval')}, path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    for load in (lambda model: load_into(model, path), lambda model: model.init_weights()):
        model = MODELS.build(backbone_cfg(init_cfg=init_cfg, **kwargs))
        with pytest.raises(CheckpointError, match=f'the weights do not fit this backbone: .*{said}') as error:
            load(model)
        assert '\n' not in str(error.value) and str(path) in str(error.value)


def test_texts_need_more_than_the_weights_of_vision(tmp_path):
    state = tiny_beit3(modalities='vision').state_dict()
    with pytest.raises(CheckpointError, match='the weights do not fit this backbone: 62 missing'):
        tiny_beit3().load_state_dict(state, strict=False)
    text = tiny_beit3(modalities='text')
    with pytest.raises(CheckpointError, match='missing: blocks.0.attn.k.text.bias'):
        text.load_state_dict({'text_embed.weight': text.text_embed.weight}, strict=False)


def test_a_text_encoder_takes_its_part_of_a_file(tmp_path):
    state = small('beit3_retrieval')
    torch.save({'model': state}, tmp_path / 'weights.pth')
    model = tiny_beit3(modalities='text')
    load_into(model, tmp_path / 'weights.pth')
    assert torch.equal(model.text_embed.weight, state['beit3.text_embed.weight'])


def test_grids_that_are_not_square_stay_ours():
    state = {f'backbone.{key}': value for key, value in tiny_beit3(img_size=(16, 64)).state_dict().items()}
    for name in ('official', 'timm'):
        with pytest.raises(CheckpointError, match=f'layout of {name} knows square grids only, .* is of 2 x 8 patches'):
            from_ours(state, name, 'beit3_backbone')
    assert same(from_ours(state, 'mmbeit', 'beit3_backbone')[0], state)


# ---- timm ----


def tiny_timm(**kwargs):
    timm = pytest.importorskip('timm')
    arch = dict(embed_dim=TINY['embed_dims'], depth=TINY['num_layers'], num_heads=TINY['num_heads'], mlp_ratio=2)
    model = timm.create_model('beit3_base_patch16_224', img_size=32, patch_size=8, num_classes=7, **arch, **kwargs)
    return randomize(model)


def test_classifier_of_timm_gives_the_same_features():
    theirs = tiny_timm()
    state = theirs.state_dict()
    ours, found = to_ours(state)
    assert (found.name, found.kind) == ('timm', 'beit3_classifier')
    assert same(from_ours(ours, 'timm')[0], state)
    model = tiny_beit3(modalities='vision', final_norm=False, out_type='avg_featmap')
    model.load_state_dict(of_backbone(ours), strict=True)
    x = images()
    close(model(x)[-1] @ ours['head.fc.weight'].T + ours['head.fc.bias'], theirs(x))


def test_backbone_of_timm_with_a_final_norm_gives_the_same_tokens():
    theirs = tiny_timm(global_pool='token')
    theirs.reset_classifier(0)
    state = theirs.state_dict()
    ours, found = to_ours(state)
    assert (found.name, found.kind) == ('timm', 'beit3_backbone')
    assert same(from_ours(ours, 'timm')[0], state)
    model = tiny_beit3(modalities='vision')
    model.load_state_dict(state, strict=True)  # under timm's names
    x = images()
    close(model(x)[-1], theirs.forward_features(x))


def test_official_classifier_for_timm_is_what_timm_itself_makes_of_it():
    vision_transformer = pytest.importorskip('timm.models.vision_transformer')
    state = small('beit3_classifier')
    theirs = vision_transformer._convert_beit3({'model': dict(state)}, None)
    assert same(from_ours(to_ours(state)[0], 'timm')[0], theirs)


@pytest.mark.parametrize('origin', ['official', 'mmbeit'])
def test_files_for_timm_are_compared_in_what_timm_has(origin, tmp_path):
    state = small('beit3_classifier')
    ours, found = to_ours(state)
    if origin == 'mmbeit':  # the first two rows of the positions, the mask token and the text are not there
        ours['backbone.pos_grid'] = torch.tensor([4, 4])
    save_state(ours, found.kind, tmp_path / 'timm.safetensors', 'timm')
    back, _ = load_state(tmp_path / 'timm.safetensors')
    assert back['backbone.pos_embed'].shape == (NUM_PATCHES + 3, 24)
    assert not any('.text' in key or 'mask_token' in key for key in back)
    assert torch.equal(back['backbone.pos_embed'][2:], ours['backbone.pos_embed'][2:])


@pytest.mark.parametrize('part', ['qkv.weight', 'qkv.bias'])
def test_a_part_of_timms_that_is_missing_is_told_once(part):
    state = tiny_timm().state_dict()
    del state[f'blocks.1.attn.{part}']
    with pytest.raises(CheckpointError, match=f'1 missing: blocks.1.attn.{part}'):
        to_ours(state)


def test_positions_of_another_shape_are_refused():
    state = tiny_timm().state_dict()
    with pytest.raises(CheckpointError, match=r'pos_embed has shape \(17, 24, 1\), expected'):
        to_ours({**state, 'pos_embed': torch.ones(17, 24, 1)})


def test_timm_has_no_models_with_text():
    ours, _ = to_ours(small('beit3_vqa'))
    with pytest.raises(CheckpointError, match="timm has no model of kind 'beit3_vqa'"):
        from_ours(ours, 'timm')


def test_other_vision_transformers_of_timm_are_not_taken_for_beit3():
    timm = pytest.importorskip('timm')
    for name in ('vit_tiny_patch16_224', 'eva02_tiny_patch14_224', 'deit3_small_patch16_224', 'beit_base_patch16_224'):
        with torch.device('meta'):
            found = recognize(timm.create_model(name, num_classes=3).state_dict())
        assert found is None or not found.kind.startswith('beit3'), name
