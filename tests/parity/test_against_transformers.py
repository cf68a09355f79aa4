"""transformers' BEiT: https://github.com/huggingface/transformers, models/beit."""

from functools import partial

import pytest
import torch
from builders import (
    NUM_CLASSES,
    NUM_CODES,
    TINY,
    load_renamed,
    logits_of,
    randomize,
    tiny_beit,
    tiny_classifier,
    tiny_mim,
)
from test_checkpoint.peers import randomize_norms, tiny_segmentor

from mmbeit.checkpoint.formats import to_ours

modeling = pytest.importorskip('transformers.models.beit.modeling_beit')
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)

BACKBONE = [
    (r'embeddings\.cls_token', 'cls_token'),
    (r'embeddings\.mask_token', 'mask_token'),
    (r'embeddings\.position_embeddings', 'pos_embed'),
    (r'embeddings\.patch_embeddings\.projection\.(\w+)', r'patch_embed.proj.\1'),
    (r'layers\.(\d+)\.layernorm_before\.(\w+)', r'blocks.\1.norm1.\2'),
    (r'layers\.(\d+)\.layernorm_after\.(\w+)', r'blocks.\1.norm2.\2'),
    (r'layers\.(\d+)\.attention\.qkv\.weight', r'blocks.\1.attn.qkv.weight'),  # see `fused`
    (r'layers\.(\d+)\.attention\.([qv])_proj\.bias', r'blocks.\1.attn.\2_bias'),
    (r'layers\.(\d+)\.attention\.o_proj\.(\w+)', r'blocks.\1.attn.proj.\2'),
    (r'layers\.(\d+)\.lambda_([12])', r'blocks.\1.scale\2.gamma'),
    (r'layers\.(\d+)\.mlp\.(fc[12]\.\w+)', r'blocks.\1.mlp.\2'),
    (r'layers\.(\d+)\.relative_position_bias\.relative_position_bias_table', r'rel_pos_bias.\1.table'),
    (r'shared_position_bias\.relative_position_bias_table', 'rel_pos_bias.0.table'),
    (r'layernorm\.(\w+)', r'norm.\1'),
    (r'pooler\.layernorm\.(\w+)', r'fc_norm.\1'),
]
IN_MODEL = [(rf'beit\.{pattern}', rf'backbone.{name}') for pattern, name in BACKBONE]
CLASSIFIER = [*IN_MODEL, (r'classifier\.(\w+)', r'head.fc.\1')]
MIM = [*IN_MODEL, (r'layernorm\.(\w+)', r'head.norm.\1'), (r'lm_head\.(\w+)', r'head.fc.\1')]


def fused(state):
    """The state dict with the three projections of each attention in one, in the order q, k, v."""
    state = dict(state)
    for key in [key for key in state if key.endswith('q_proj.weight')]:
        parts = [state.pop(key.replace('q_proj', f'{x}_proj')) for x in 'qkv']
        state[key.replace('q_proj', 'qkv')] = torch.cat(parts)
    return state


def tiny_transformers(cls, rel_pos_bias=None, **kwargs):
    config = dict(
        hidden_size=TINY['embed_dims'],
        num_hidden_layers=TINY['num_layers'],
        num_attention_heads=TINY['num_heads'],
        intermediate_size=TINY['feedforward_channels'],
        image_size=32,
        patch_size=8,
        vocab_size=NUM_CODES,
        num_labels=NUM_CLASSES,
        layer_norm_eps=1e-6,  # the default, 1e-12, is not the official one
        use_relative_position_bias=rel_pos_bias == 'per_block',
        use_shared_relative_position_bias=rel_pos_bias == 'shared',
    )
    return randomize(cls(modeling.BeitConfig(**{**config, **kwargs})))


@pytest.mark.parametrize('rel_pos_bias', ['shared', 'per_block', None])
def test_tokens_against_transformers(rel_pos_bias):
    theirs = tiny_transformers(
        partial(modeling.BeitModel, add_pooling_layer=False), rel_pos_bias, use_mean_pooling=False
    )
    ours = tiny_beit(rel_pos_bias=rel_pos_bias, out_type='raw', final_norm=True)
    load_renamed(ours, fused(theirs.state_dict()), BACKBONE)
    images = torch.randn(2, 3, 32, 32)
    close(ours(images)[-1], theirs(images).last_hidden_state)


def test_absolute_positions_against_transformers_at_their_own_and_another_size():
    theirs = tiny_transformers(modeling.BeitModel, use_absolute_position_embeddings=True, layer_scale_init_value=0.0)
    ours = tiny_beit(rel_pos_bias=None, abs_pos_embed=True, layer_scale=None)
    load_renamed(ours, fused(theirs.state_dict()), BACKBONE)
    for size in ((32, 32), (48, 40)):
        images = torch.randn(2, 3, *size)
        close(ours(images)[-1], theirs(images).pooler_output)


def test_mean_pooled_classification_against_transformers():
    theirs = tiny_transformers(modeling.BeitForImageClassification, 'per_block')
    ours = load_renamed(tiny_classifier(), fused(theirs.state_dict()), CLASSIFIER)
    images = torch.randn(2, 3, 32, 32)
    close(logits_of(ours, images), theirs(images).logits)


def test_class_token_classification_against_transformers():
    theirs = tiny_transformers(modeling.BeitForImageClassification, 'per_block', use_mean_pooling=False)
    ours = tiny_classifier(out_type='cls_token', final_norm=True)
    load_renamed(ours, fused(theirs.state_dict()), CLASSIFIER)
    images = torch.randn(2, 3, 32, 32)
    close(logits_of(ours, images), theirs(images).logits)


def test_pretraining_logits_against_transformers():
    # With `use_mean_pooling=False` it would apply two norms in a row; the official model has one.
    theirs = tiny_transformers(modeling.BeitForMaskedImageModeling, 'shared', use_mask_token=True)
    ours = load_renamed(tiny_mim(), fused(theirs.state_dict()), MIM)
    images, mask = torch.randn(2, 3, 32, 32), torch.rand(2, 16) < 0.4
    close(ours.predict_tokens(images, mask), theirs(images, bool_masked_pos=mask).logits[mask])


def test_bias_of_a_wide_window_is_the_direct_lookup_where_transformers_swaps_height_and_width():
    """transformers resizes on every forward, even to the same size, and reads the table as if it were tall."""
    theirs = tiny_transformers(modeling.BeitModel, 'shared', image_size=(16, 40)).shared_position_bias
    ours = tiny_beit(rel_pos_bias='shared', img_size=(16, 40)).rel_pos_bias[0]
    load_renamed(ours, theirs.state_dict(), [('relative_position_bias_table', 'table')])
    table, index = theirs.relative_position_bias_table, theirs.generate_relative_position_index((2, 5))
    assert torch.equal(ours(), table[index].permute(2, 0, 1))
    assert (theirs((2, 5))[0] - ours()).abs().max() > 0.1


def test_segmentation_logits_against_transformers_with_the_official_taps():
    """`BeitForSemanticSegmentation` takes the tokens two blocks before those that its `out_indices` name (0-based)."""
    pytest.importorskip('mmseg', reason='needs onedl-mmsegmentation, the extra `seg`')
    taps = (3, 5, 7, 11)
    theirs = tiny_transformers(
        modeling.BeitForSemanticSegmentation,
        'per_block',
        num_hidden_layers=12,
        out_indices=list(taps),
        auxiliary_channels=16,
    )
    randomize_norms(theirs)
    ours = tiny_segmentor(arch={**TINY, 'num_layers': 12}, out_indices=taps)
    state, table = to_ours(theirs.state_dict())
    assert (table.name, table.kind) == ('hf', 'segmentor')
    assert ours.load_state_dict(state, strict=False).missing_keys == []
    images = torch.randn(2, 3, 32, 32)
    tokens = theirs.beit(images, output_hidden_states=True).hidden_states  # the first are the embeddings
    maps = theirs.fpn([tokens[i + 1][:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for i in taps])
    logits = ours(images)
    assert logits.std() > 0.01
    close(logits, theirs.decode_head(maps))
    close(ours.auxiliary_head(ours.extract_feat(images)), theirs.auxiliary_head(maps))
    as_it_is = theirs(images).logits
    resized = torch.nn.functional.interpolate(logits, size=as_it_is.shape[-2:], mode='bilinear')
    assert (as_it_is - resized).abs().max() > 0.01
