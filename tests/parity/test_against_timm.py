"""timm's `Beit`: https://github.com/huggingface/pytorch-image-models, timm/models/beit.py."""

from functools import partial

import pytest
import torch
from builders import NUM_CLASSES, TINY, load_renamed, logits_of, randomize, tiny_beit, tiny_classifier
from torch import nn

timm_beit = pytest.importorskip('timm.models.beit')
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)

BACKBONE = [
    (r'(cls_token|pos_embed|patch_embed\.proj\.\w+)', r'\1'),
    (r'(blocks\.\d+\.(norm[12]|mlp\.fc[12]|attn\.proj)\.\w+)', r'\1'),
    (r'(blocks\.\d+\.attn\.(q_bias|v_bias|qkv\.weight))', r'\1'),
    (r'(blocks\.\d+)\.gamma_([12])', r'\1.scale\2.gamma'),
    (r'blocks\.(\d+)\.attn\.relative_position_bias_table', r'rel_pos_bias.\1.table'),
    (r'rel_pos_bias\.relative_position_bias_table', 'rel_pos_bias.0.table'),
    (r'((fc_)?norm\.\w+)', r'\1'),
]
CLASSIFIER = [*((pattern, rf'backbone.{name}') for pattern, name in BACKBONE), (r'head\.(\w+)', r'head.fc.\1')]


def tiny_timm(rel_pos_bias=None, **kwargs):
    arch = dict(embed_dim=TINY['embed_dims'], depth=TINY['num_layers'], num_heads=TINY['num_heads'])
    defaults = dict(img_size=32, patch_size=8, num_classes=0, use_abs_pos_emb=False, init_values=0.1)
    return randomize(
        timm_beit.Beit(
            **{**arch, **defaults, **kwargs},
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos_bias=rel_pos_bias == 'per_block',
            use_shared_rel_pos_bias=rel_pos_bias == 'shared',
        )
    )


@pytest.mark.parametrize('img_size', [32, (24, 40)])
@pytest.mark.parametrize('rel_pos_bias', ['shared', 'per_block', None])
def test_tokens_against_timm(rel_pos_bias, img_size):
    theirs = tiny_timm(rel_pos_bias, img_size=img_size, global_pool='token')
    ours = tiny_beit(rel_pos_bias=rel_pos_bias, img_size=img_size, out_type='raw', final_norm=True)
    load_renamed(ours, theirs.state_dict(), BACKBONE)
    images = torch.randn(2, 3, *theirs.patch_embed.img_size)
    close(ours(images)[-1], theirs.forward_features(images))


def test_intermediate_feature_maps_against_timm():
    theirs = tiny_timm('per_block', img_size=(24, 40))
    ours = tiny_beit(img_size=(24, 40), out_type='featmap', out_indices=(0, 2, 3))
    load_renamed(ours, theirs.state_dict(), [(r'fc_norm\.\w+', None), *BACKBONE])
    images = torch.randn(2, 3, 24, 40).double()
    expected = theirs.double().forward_intermediates(images, [0, 2, 3], intermediates_only=True)
    torch.testing.assert_close(list(ours.double()(images)), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('layer_scale', [0.1, None])
def test_absolute_positions_against_timm(layer_scale):
    theirs = tiny_timm(use_abs_pos_emb=True, init_values=layer_scale, global_pool='token')
    ours = tiny_beit(rel_pos_bias=None, abs_pos_embed=True, layer_scale=layer_scale, out_type='raw', final_norm=True)
    load_renamed(ours, theirs.state_dict(), BACKBONE)
    images = torch.randn(2, 3, 32, 32)
    close(ours(images)[-1], theirs.forward_features(images))


@pytest.mark.parametrize(
    ('global_pool', 'out'),
    [('avg', dict(out_type='avg_featmap')), ('token', dict(out_type='cls_token', final_norm=True))],
)
def test_classification_against_timm(global_pool, out):
    theirs = tiny_timm('per_block', global_pool=global_pool, num_classes=NUM_CLASSES)
    ours = load_renamed(tiny_classifier(**out), theirs.state_dict(), CLASSIFIER)
    images = torch.randn(2, 3, 32, 32)
    close(logits_of(ours, images), theirs(images))
