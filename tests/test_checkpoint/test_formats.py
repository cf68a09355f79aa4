"""Conversion of every layout and kind, there and back."""

from functools import partial

import pytest
import torch
from builders import NUM_CLASSES, logits_of, tiny_beit, tiny_classifier, tiny_mim
from mmengine.registry import MODELS
from test_checkpoint import official, peers

from mmbeit.checkpoint.formats import FORMATS, TABLES, find_table, from_ours, recognize, to_ours, unwrap
from mmbeit.checkpoint.keymap import Drop, Fuse, Make, Reform, Rename, Split, Table, convert, invert
from mmbeit.checkpoint.layout import pattern
from mmbeit.checkpoint.load import CheckpointError

close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
# What nothing reads, or what a format cannot say, and is left out on purpose.
VESTIGES = ('quantize.embedding.cluster_size', 'quantize.embedding.embed_avg')


def round_trip(state, format, kind, exact=True):
    """Theirs, ours, theirs again. Returns ours."""
    ours, found = to_ours(state)
    assert (found.name, found.kind) == (format, kind)
    back, _ = from_ours(ours, format)
    if exact:
        assert back.keys() == state.keys()
    for key in back.keys() - set(VESTIGES):
        assert torch.equal(back[key], state[key]), key
    return ours


def load(model, ours):
    model.load_state_dict(ours, strict=False)  # the buffer `grid` is ours alone
    missing = set(model.state_dict()) - set(ours)
    assert all(key.endswith('.grid') for key in missing), missing
    assert not set(ours) - set(model.state_dict())
    return model.eval()


# ---- our own tables ----


def test_tables_lead_to_the_layout_and_nowhere_else():
    for table in TABLES:
        keys = {entry.key for entry in table.layout}
        shared = {key.replace('rel_pos_bias.{}', 'rel_pos_bias.0') for key in keys}
        for row in table.rows:
            match row:
                case Make(target=target) if '{*}' in target:
                    assert any(pattern(target).fullmatch(key) for key in keys), (str(table), row)
                    continue
                case Rename(target=target) | Reform(target=target) | Fuse(target=target) | Make(target=target):
                    targets = (target,)
                case Split(targets=targets):
                    pass
                case Drop():
                    continue
            assert set(targets) - {''} <= keys | shared, (str(table), row)


def test_every_tensor_of_a_layout_has_a_name_in_every_table():
    unsaid = {  # what a library does not have
        'mmpretrain': ('unshared head',),
        'hf': ('unshared head',),
    }
    for table in TABLES:
        back = invert(table)
        for entry in table.layout:
            if entry.key.endswith('.grid') or entry.optional in unsaid.get(table.format, ()):
                continue
            if entry.optional and ('norm' in entry.optional or 'positions' in entry.optional):
                continue
            if table.format != 'mmbeit' and table.kind == 'vqkd' and 'tables' in entry.optional:
                continue
            assert back.find(entry.key.replace('{}', '2'), ()), (str(table), entry.key)


def test_inverting_twice_changes_nothing():
    for table in TABLES:
        assert invert(invert(table)) == table


# ---- classification ----

POOLING = {
    'mean': (dict(use_mean_pooling=True), dict(global_pool='avg'), dict(), dict()),
    'class token': (
        dict(use_mean_pooling=False),
        dict(global_pool='token'),
        dict(out_type='cls_token', final_norm=True),
        dict(out_type='cls_token', final_norm=True),
    ),
}


@pytest.mark.parametrize('pooling', POOLING)
def test_classifier_of_transformers(pooling, tmp_path):
    theirs_only, _, _, ours_only = POOLING[pooling]
    theirs = peers.tiny_hf('BeitForImageClassification', use_relative_position_bias=True, **theirs_only)
    ours = round_trip(peers.hf_state(theirs, tmp_path), 'hf', 'classifier')
    images = torch.randn(2, 3, 32, 32)
    close(logits_of(load(tiny_classifier(**ours_only), ours), images), theirs(images).logits)


@pytest.mark.parametrize('pooling', POOLING)
def test_classifier_of_timm(pooling):
    _, theirs_only, _, ours_only = POOLING[pooling]
    theirs = peers.tiny_timm(**theirs_only)
    ours = round_trip(theirs.state_dict(), 'timm', 'classifier')
    images = torch.randn(2, 3, 32, 32)
    close(logits_of(load(tiny_classifier(**ours_only), ours), images), theirs(images))


@pytest.mark.parametrize('pooling', POOLING)
def test_classifier_of_mmpretrain(pooling):
    _, _, theirs_only, ours_only = POOLING[pooling]
    theirs = peers.tiny_mm_classifier(**theirs_only)
    ours = round_trip(theirs.state_dict(), 'mmpretrain', 'classifier')
    images = torch.randn(2, 3, 32, 32)
    close(logits_of(load(tiny_classifier(**ours_only), ours), images), logits_of(theirs, images))


POSITIONS = [
    (dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True), dict(rel_pos_bias='shared')),
    (
        dict(use_rel_pos_bias=False, use_abs_pos_emb=True, init_values=None),
        dict(rel_pos_bias=None, abs_pos_embed=True, layer_scale=None),
    ),
]


@pytest.mark.parametrize(('theirs', 'ours'), POSITIONS, ids=['shared table', 'absolute, no layer scale'])
def test_classifier_with_other_positions(theirs, ours):
    theirs = peers.tiny_timm(**theirs)
    state = round_trip(theirs.state_dict(), 'timm', 'classifier')
    images = torch.randn(2, 3, 32, 32)
    close(logits_of(load(tiny_classifier(**ours), state), images), theirs(images))


def test_a_shared_table_fits_a_model_with_a_table_per_block():
    theirs = peers.tiny_timm(use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
    model = tiny_classifier()
    report = model.load_state_dict(to_ours(theirs.state_dict())[0], strict=False)
    assert not report.missing_keys and not report.unexpected_keys
    images = torch.randn(2, 3, 32, 32)
    close(logits_of(model, images), theirs(images))


def test_names_in_the_memory_of_transformers_are_read_too():
    for theirs in (
        peers.tiny_hf('BeitForImageClassification', use_relative_position_bias=True),
        peers.tiny_hf('BeitForImageClassification', use_shared_relative_position_bias=True),
        peers.tiny_hf('BeitForMaskedImageModeling', use_shared_relative_position_bias=True, use_mask_token=True),
        peers.tiny_hf('BeitForSemanticSegmentation', use_relative_position_bias=True, out_indices=[1, 2, 3, 4]),
    ):
        state = theirs.state_dict()
        if any('rel_pos' in key or 'position_bias' in key for key in state):
            ours, found = to_ours(state)
            assert found.name == 'hf' and len(ours) == len(state) - 2 * 4  # q, k and v are one
            assert {key.partition('.')[0] for key in from_ours(ours, 'hf')[0]} >= {'beit'}


@pytest.mark.parametrize('cls', ['BeitModel', 'BeitBackbone'])
def test_backbone_of_transformers(cls, tmp_path):
    theirs = peers.tiny_hf(cls, use_relative_position_bias=True)
    ours = round_trip(peers.hf_state(theirs, tmp_path), 'hf', 'backbone')
    backbone = {key.removeprefix('backbone.'): value for key, value in ours.items()}
    model = load(tiny_beit(out_type='raw' if cls == 'BeitBackbone' else 'avg_featmap'), backbone)
    images = torch.randn(2, 3, 32, 32)
    if cls == 'BeitModel':
        close(model(images)[-1], theirs(images).pooler_output)


def test_backbone_of_timm():
    theirs = peers.tiny_timm(num_classes=0)
    ours = round_trip(theirs.state_dict(), 'timm', 'backbone')
    model = load(tiny_beit(), {key.removeprefix('backbone.'): value for key, value in ours.items()})
    images = torch.randn(2, 3, 32, 32)
    close(model(images)[-1], theirs(images))


def test_backbone_of_mmpretrain():
    theirs = peers.randomize(MODELS.build(peers.mm_backbone_cfg(out_type='avg_featmap')))
    ours = round_trip(theirs.state_dict(), 'mmpretrain', 'backbone')
    model = load(tiny_beit(), {key.removeprefix('backbone.'): value for key, value in ours.items()})
    images = torch.randn(2, 3, 32, 32)
    close(model(images), theirs(images))


# ---- pretraining ----


def test_pretraining_of_transformers(tmp_path):
    theirs = peers.tiny_hf('BeitForMaskedImageModeling', use_shared_relative_position_bias=True, use_mask_token=True)
    ours = load(tiny_mim(), round_trip(peers.hf_state(theirs, tmp_path), 'hf', 'mim'))
    images, mask = torch.randn(2, 3, 32, 32), torch.rand(2, 16) < 0.4
    close(ours.predict_tokens(images, mask), theirs(images, bool_masked_pos=mask).logits[mask])


def test_pretraining_of_mmpretrain():
    theirs = peers.tiny_mm_mim()
    ours = load(tiny_mim(), round_trip(theirs.state_dict(), 'mmpretrain', 'mim'))
    images, mask = torch.randn(2, 3, 32, 32), torch.rand(2, 4, 4) < 0.4
    tokens, flat = theirs.backbone(images, mask)[0], mask.flatten(1)
    close(ours.predict_tokens(images, flat), theirs.head.cls_head(tokens[:, 1:][flat]))


def test_pretraining_v2_of_mmpretrain():
    theirs = peers.tiny_mm_mim(v2=True)
    ours = load(tiny_mim(v2=True), round_trip(theirs.state_dict(), 'mmpretrain', 'mim_v2'))
    images, mask = torch.randn(2, 3, 32, 32), torch.rand(2, 4, 4) < 0.4
    theirs.backbone.out_indices = [2, 3]
    tokens, flat = theirs.backbone(images, mask), mask.flatten(1)
    last, aggregated = theirs.neck(tokens, theirs.backbone.shared_rel_pos_bias)
    expected = {'mim': theirs.head.cls_head(last[flat]), 'cls': theirs.head.cls_head(aggregated[flat])}
    close(ours.predict_streams(images, flat), expected)


def test_the_target_generator_that_mmpretrain_saves_with_the_model_is_dropped():
    state = peers.tiny_mm_mim().state_dict()
    ours, _ = to_ours({**state, 'target_generator.encoder.blocks.0.norm1.weight': torch.ones(3)})
    assert ours.keys() == to_ours(state)[0].keys()


# ---- tokenizers ----


def test_vqkd_with_what_training_leaves_in_it():
    state = official.random(official.vqkd(dim=48, depth=3))
    ours, found = to_ours(state | {'teacher_model.visual.proj': torch.zeros(2), 'scaling_layer.scale': torch.zeros(2)})
    assert found.exact
    back, _ = from_ours(ours, 'official')
    assert back.keys() == state.keys()  # the teacher is not theirs to bring
    # What nothing reads is there for their strict loader, with the values of what it is named after.
    assert torch.equal(back['quantize.embedding.embed_avg'], state['quantize.embedding.weight'])
    assert torch.equal(back['quantize.embedding.cluster_size'], state['quantize.cluster_size'])


def test_vqkd_of_mmpretrain():
    ours = round_trip(peers.tiny_mm_vqkd().state_dict(), 'mmpretrain', 'vqkd_encoder')
    assert {'quantizer.codebook', 'quantizer.initted', 'encoder.norm.weight', 'encode_task_layer.2.bias'} <= ours.keys()


def test_dvae_of_flava_gives_the_same_logits(tmp_path):
    from mmbeit.layers.dvae import DVAEEncoder

    theirs = peers.tiny_flava()
    ours = round_trip(theirs.state_dict(), 'hf', 'dvae_encoder')
    encoder = DVAEEncoder(peers.NUM_CODES, 8)
    encoder.load_state_dict({key.removeprefix('encoder.'): value for key, value in ours.items()})
    images = torch.rand(2, 3, 16, 24)
    close(encoder(images), theirs.blocks(images))


def test_dvae_of_openai_and_openmmlab_share_their_names():
    from mmbeit.models import DiscreteVAE

    model = DiscreteVAE(num_codes=16, width=8, num_groups=3, num_blocks=2)
    assert recognize(model.state_dict()).kind == 'dvae' and recognize(model.state_dict()).exact
    for part in ('encoder', 'decoder'):
        ours = round_trip(getattr(model, part).state_dict(), 'official', f'dvae_{part}')
        assert ours.keys() == {f'{part}.{key}' for key in getattr(model, part).state_dict()}
    state = model.encoder.state_dict()
    ours, _ = to_ours(state, 'mmpretrain')
    assert from_ours(ours, 'mmpretrain')[0].keys() == state.keys()


# ---- segmentation ----


@pytest.fixture(scope='module')
def mmseg_models():
    return pytest.importorskip('mmseg.models')


def test_segmentor_of_mmseg(mmseg_models):
    theirs = peers.tiny_mmseg().eval()
    ours = load(peers.tiny_segmentor(), round_trip(theirs.state_dict(), 'mmseg', 'segmentor'))
    images = torch.randn(2, 3, 32, 32)
    metas = [dict(img_shape=(32, 32))] * 2
    close(ours.encode_decode(images, metas), theirs.encode_decode(images, metas))
    close(ours.auxiliary_head(ours.extract_feat(images)), theirs.auxiliary_head(theirs.extract_feat(images)))


def test_segmentor_of_transformers_with_the_official_taps(mmseg_models, tmp_path):
    """`BeitForSemanticSegmentation` reads the tokens two blocks before those that its config names (0-based)."""
    theirs = peers.randomize_norms(
        peers.tiny_hf(
            'BeitForSemanticSegmentation',
            use_relative_position_bias=True,
            use_mean_pooling=True,
            out_indices=[1, 2, 3, 4],
            auxiliary_channels=16,
        )
    )
    ours = load(peers.tiny_segmentor(), round_trip(peers.hf_state(theirs, tmp_path), 'hf', 'segmentor'))
    images = torch.randn(2, 3, 32, 32)
    tokens = theirs.beit(images, output_hidden_states=True).hidden_states[1:]  # after each of the four blocks
    maps = [x[:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for x in tokens]
    maps = theirs.fpn(maps) if hasattr(theirs, 'fpn') else maps
    feats = ours.extract_feat(images)
    for here, there in zip(feats, maps, strict=True):
        close(here, there)
    close(ours.decode_head(feats), theirs.decode_head(maps))
    close(ours.auxiliary_head(feats), theirs.auxiliary_head(maps))


# ---- official files, from their specification ----

OFFICIAL = {
    'mim': (official.mim, dict()),
    'mim large': (official.mim, dict(dim=64, depth=24, heads=16)),
    'mim_v2': (official.mim, dict(dim=48, depth=12, codes=64, v2=True)),
    'mim_v2 unshared': (official.mim, dict(dim=48, depth=12, codes=64, v2=True, shared=False)),
    'classifier': (official.classifier, dict(dim=48, depth=3, classes=5)),
    'classifier 384': (official.classifier, dict(dim=48, depth=3, classes=5, side=24)),
    'classifier by class token': (official.classifier, dict(dim=48, depth=3, classes=5, use_cls=True)),
    'segmentor': (official.segmentor, dict(dim=24, depth=4, heads=3, side=4, classes=7)),
    'vqkd': (official.vqkd, dict(dim=48, depth=3)),
    'vqkd 3 dino': (official.vqkd, dict(dim=48, depth=3, decoder_depth=3, target=768)),
    'dvae_encoder': (official.dvae_encoder, dict(width=8, codes=16)),
}


@pytest.mark.parametrize('name', OFFICIAL)
def test_official_layout(name):
    shapes, sizes = OFFICIAL[name]
    if name == 'mim':
        sizes = dict(dim=96, depth=12, codes=64)
    round_trip(official.random(shapes(**sizes)), 'official', name.partition(' ')[0])


def test_official_base_models_are_ours_of_base_size():
    with torch.device('meta'):
        model = MODELS.build(
            dict(
                type='mmpretrain.ImageClassifier',
                backbone=dict(type='mmbeit.BEiT', arch='base'),
                head=dict(type='LinearClsHead', num_classes=1000, in_channels=768),
            )
        )
        mim = MODELS.build(
            dict(
                type='mmbeit.MaskedImageModeling',
                backbone=dict(type='mmbeit.BEiT', arch='base', rel_pos_bias='shared', mask_token=True, out_type='raw'),
                head=dict(type='mmbeit.MIMHead', num_codes=8192),
            )
        )
        vqkd = MODELS.build(dict(type='mmbeit.VQKD', tokenizer=dict(), num_decoder_layers=3, target_dims=512))
    official_vqkd = official.vqkd(decoder_depth=3)
    for expected, shapes in ((model, official.classifier()), (mim, official.mim()), (vqkd, official_vqkd)):
        state = {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}
        ours, _ = to_ours(state)
        assert {key: value.shape for key, value in ours.items()} == {
            key: value.shape for key, value in expected.state_dict().items() if not key.endswith('grid')
        }


@pytest.mark.parametrize('shared', [True, False])
def test_official_base_model_of_v2_is_ours_of_base_size(shared):
    backbone = dict(type='mmbeit.BEiT', arch='base', rel_pos_bias='shared', mask_token=True, out_type='raw')
    with torch.device('meta'):
        model = MODELS.build(
            dict(
                type='mmbeit.MaskedImageModeling',
                backbone=backbone,
                neck=dict(type='mmbeit.PatchAggregationNeck', early_layers=9),
                head=dict(type='mmbeit.MIMHead', num_codes=8192, shared=shared),
            )
        )
    shapes = official.mim(v2=True, shared=shared)
    ours, _ = to_ours({key: torch.empty(shape, device='meta') for key, shape in shapes.items()})
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in model.state_dict().items() if not key.endswith('grid')
    }


@pytest.mark.parametrize('shared', [True, False])
def test_pretraining_of_v2_goes_to_official_files_and_back(shared):
    model = tiny_mim(v2=True, shared=shared)
    state, table = from_ours(model.state_dict(), 'official')
    assert table.kind == 'mim_v2' and {'cls_pt_layers.1.gamma_2', 'lm_head.weight', 'norm.bias'} <= state.keys()
    assert ('cls_pt_norm.weight' in state) == ('cls_pt_lm_head.bias' in state) == (not shared)
    ours = round_trip(state, 'official', 'mim_v2')
    other = load(tiny_mim(v2=True, shared=shared), ours)
    images, mask = torch.randn(2, 3, 32, 32), torch.rand(2, 16) < 0.4
    expected = model.predict_streams(images, mask)
    assert all(torch.equal(logits, expected[name]) for name, logits in other.predict_streams(images, mask).items())


def test_official_segmentor_fits_the_model_of_mmseg(mmseg_models):
    shapes = official.segmentor(dim=24, depth=4, heads=3, side=4, classes=NUM_CLASSES)
    ours, _ = to_ours(official.random(shapes))
    model = peers.tiny_segmentor()
    expected = {key: value.shape for key, value in model.state_dict().items() if not key.endswith('grid')}
    auxiliary = [key for key in expected if key.startswith('auxiliary_head')]
    assert ours.keys() == expected.keys()
    assert all(ours[key].shape == expected[key] for key in expected if key not in auxiliary and 'patch' not in key)


def test_classifiers_go_from_every_format_to_every_other():
    ours = tiny_classifier().state_dict()
    for first in ('official', 'hf', 'timm', 'mmpretrain', 'mmbeit'):
        for second in ('official', 'hf', 'timm', 'mmpretrain'):
            there, _ = from_ours(ours, first)
            again, _ = from_ours(to_ours(there)[0], second)
            back, _ = to_ours(again)
            assert all(torch.equal(value, back[key]) for key, value in ours.items() if not key.endswith('grid'))


def test_vqkd_goes_to_mmpretrain_without_its_decoder():
    ours, _ = to_ours(official.random(official.vqkd(dim=48, depth=3)))
    theirs, table = from_ours(ours, 'mmpretrain')
    assert table.kind == 'vqkd_encoder' and not any(key.startswith('deco') for key in theirs)
    back, found = to_ours(theirs)
    assert found.kind == 'vqkd_encoder' and len(back) == sum(key.startswith('tokenizer.') for key in ours)
    assert all(torch.equal(back[key], ours[f'tokenizer.{key}']) for key in back)


# ---- what does not fit ----


@pytest.fixture(scope='module')
def official_mim():
    return official.random(official.mim(dim=24, depth=4, heads=3, codes=11))


def test_every_key_counts(official_mim):
    for key in official_mim:
        if key.endswith('relative_position_index'):
            continue
        state = {name: value for name, value in official_mim.items() if name != key}
        optional = key in ('mask_token', 'rel_pos_bias.relative_position_bias_table')
        if optional:
            continue
        with pytest.raises(CheckpointError) as error:
            to_ours(state)
        assert key in str(error.value) and 'official' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('format', ['hf', 'timm', 'mmpretrain', 'official'])
def test_every_key_counts_in_every_format(format):
    state, _ = from_ours(tiny_classifier().state_dict(), format)
    for key in state:
        less = {name: value for name, value in state.items() if name != key}
        if key.endswith('relative_position_index'):
            continue
        with pytest.raises(CheckpointError) as error:
            convert(less, find_table(format, 'classifier'))
        assert key in str(error.value)
    for key in ('blocks.1.norm5.weight', 'more'):
        with pytest.raises(CheckpointError, match=f'1 unexpected: {key}'):
            convert({**state, key: torch.ones(1)}, find_table(format, 'classifier'))


@pytest.mark.parametrize('key', ['blocks.2.norm1.weight', 'lm_head.bias', 'blocks.3.attn.qkv.weight', 'cls_token'])
def test_shapes_have_to_agree(official_mim, key):
    state = {**official_mim, key: torch.zeros(*official_mim[key].shape[:-1], 23)}
    with pytest.raises(CheckpointError, match=f'1 wrong: {key} has shape .* expected') as error:
        to_ours(state)
    assert '23' in str(error.value)


def test_the_nearest_name_is_told(official_mim):
    state = {key.replace('blocks.2.norm1', 'blocks.2.norm_1'): value for key, value in official_mim.items()}
    with pytest.raises(CheckpointError, match=r'blocks.2.norm_1.weight \(nearest: blocks.2.norm1.weight\)'):
        to_ours(state)


def test_a_whole_block_is_missed(official_mim):
    state = {key: value for key, value in official_mim.items() if not key.startswith('blocks.1.')}
    with pytest.raises(CheckpointError, match='missing: .*blocks.1.norm1.weight'):
        to_ours(state)
    with pytest.raises(CheckpointError, match='blocks.0.norm1.weight'):
        to_ours({key: value for key, value in official_mim.items() if not key.startswith('blocks.0.')})


def test_one_of_q_k_and_v_is_missed():
    state, _ = from_ours(tiny_classifier().state_dict(), 'hf')
    key = 'beit.encoder.layer.2.attention.attention.key.weight'
    other = state.pop(key)
    with pytest.raises(CheckpointError, match=f'1 missing: {key}'):
        to_ours(state)
    with pytest.raises(CheckpointError, match=f'shapes differ: .*{key} '):
        to_ours({**state, key: other[:-1]})


def test_the_bias_of_k_has_to_be_zero():
    state, _ = from_ours(tiny_classifier().state_dict(), 'timm')
    q, v = state['blocks.0.attn.q_bias'], state['blocks.0.attn.v_bias']
    for i in range(4):
        q, v = state.pop(f'blocks.{i}.attn.q_bias'), state.pop(f'blocks.{i}.attn.v_bias')
        state[f'blocks.{i}.attn.qkv.bias'] = torch.cat([q, torch.zeros_like(q), v])
    ours, _ = to_ours(state)
    assert torch.equal(ours['backbone.blocks.3.attn.v_bias'], v)
    state['blocks.3.attn.qkv.bias'][len(q)] = 1e-3
    with pytest.raises(CheckpointError, match='blocks.3.attn.qkv.bias has a part that BEiT does not have'):
        to_ours(state)


def test_a_name_given_twice_is_told():
    state, _ = from_ours(tiny_classifier().state_dict(), 'hf')
    state['beit.layers.0.lambda_1'] = state['beit.encoder.layer.0.lambda_1']
    with pytest.raises(CheckpointError, match='another key both stand for backbone.blocks.0.scale1.gamma'):
        to_ours(state)


@pytest.mark.parametrize('name', [name for name in FORMATS if name not in ('mmbeit', 'mmseg')])
def test_grids_that_are_not_square_stay_ours(name):
    state = tiny_classifier(img_size=(16, 40)).state_dict()
    with pytest.raises(CheckpointError, match=f'the layout of {name} knows square grids only'):
        from_ours(state, name)
    assert from_ours(state, 'mmbeit')[0].keys() == state.keys()


def test_a_model_that_a_format_does_not_have_is_refused():
    with pytest.raises(CheckpointError, match="timm has no model of kind 'mim', only classifier, backbone"):
        from_ours(tiny_mim().state_dict(), 'timm')
    with pytest.raises(ValueError, match="unknown format 'keras': expected one of mmbeit, timm, official"):
        from_ours(tiny_mim().state_dict(), 'keras')


def other_architectures():
    import timm

    yield 'resnet', timm.create_model('resnet18', num_classes=3)
    yield 'vit', timm.create_model('vit_tiny_patch16_224', num_classes=3)
    yield 'swin v2', timm.create_model('swinv2_cr_tiny_224', num_classes=3)
    yield 'vit of mmpretrain', MODELS.build(dict(type='mmpretrain.VisionTransformer', arch='deit-t'))


def test_other_architectures_are_not_taken_for_beit():
    for name, model in other_architectures():
        assert recognize(model.state_dict()) is None, name
        with pytest.raises(CheckpointError, match='not recognised as a model of the BEiT family') as error:
            to_ours(model.state_dict())
        assert '\n' not in str(error.value)


# ---- containers ----


def test_weights_are_found_in_their_container():
    state = {'a.weight': torch.ones(2)}
    for content in (
        state,
        {'model': state, 'optimizer': {}, 'epoch': 3},
        {'module': state},
        {'state_dict': state, 'meta': {}},
        {'state_dict': {f'module.{key}': value for key, value in state.items()}},
        {'model': {'module': state}},
    ):
        assert unwrap(content) == state


def test_the_average_is_read_on_request():
    content = {'model': {'a': torch.ones(1)}, 'model_ema': {'module.a': torch.zeros(1)}}
    assert unwrap(content)['a'] == 1 and unwrap(content, ema=True)['a'] == 0
    with pytest.raises(CheckpointError, match='holds no average'):
        unwrap({'model': {}}, ema=True)


@pytest.mark.parametrize('content', [{}, {'model': {}}, {'epoch': 3}, [1, 2], 'text', torch.ones(2)])
def test_what_holds_no_tensors_is_refused(content):
    with pytest.raises(CheckpointError, match='holds'):
        unwrap(content)


def test_a_table_of_ones_own():
    """A further family is a layout and a table."""
    from mmbeit.checkpoint.layout import Entry

    layout = (Entry('a.{}.qkv', '3D D'), Entry('a.{}.norm', 'D'))
    rows = (Fuse(tuple(f'x.{{}}.{p}' for p in 'qkv'), 'a.{}.qkv'), Rename('x.{}.n', 'a.{}.norm'), Drop('junk.{*}'))
    table = Table('mine', 'thing', rows, layout)
    state = {f'x.{i}.{p}': torch.randn(2, 2) for i in range(2) for p in 'qkv'} | {
        f'x.{i}.n': torch.ones(2) for i in (0, 1)
    }
    ours = convert({**state, 'junk.of.3.parts': torch.ones(1)}, table)
    assert ours.keys() == {'a.0.qkv', 'a.1.qkv', 'a.0.norm', 'a.1.norm'}
    back = convert(ours, invert(table))
    assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)
