"""mmpretrain's parts of BEiT v1 and v2: https://github.com/open-mmlab/mmpretrain."""

import random
from functools import partial

import numpy as np
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
from mmengine.registry import MODELS, TRANSFORMS
from torch import nn

from mmbeit.datasets.transforms import BlockwiseMask
from mmbeit.layers.block import Block

pytest.importorskip('mmpretrain.models')
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
close_in_double = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)

BACKBONE = [
    (r'(cls_token|mask_token|pos_embed)', r'\1'),
    (r'patch_embed\.projection\.(\w+)', r'patch_embed.proj.\1'),
    (r'layers\.(\d+)\.ln([12])\.(\w+)', r'blocks.\1.norm\2.\3'),
    (r'layers\.(\d+)\.gamma_([12])', r'blocks.\1.scale\2.gamma'),
    (r'layers\.(\d+)\.ffn\.layers\.0\.0\.(\w+)', r'blocks.\1.mlp.fc1.\2'),
    (r'layers\.(\d+)\.ffn\.layers\.1\.(\w+)', r'blocks.\1.mlp.fc2.\2'),
    (r'layers\.(\d+)\.attn\.relative_position_bias_table', r'rel_pos_bias.\1.table'),
    (r'layers\.(\d+)\.attn\.(q_bias|v_bias|qkv\.weight|proj\.\w+)', r'blocks.\1.attn.\2'),
    (r'rel_pos_bias\.relative_position_bias_table', 'rel_pos_bias.0.table'),
    (r'.*relative_position_index', None),  # follows from the grid
    (r'ln1\.(\w+)', r'norm.\1'),
    (r'ln2\.(\w+)', r'fc_norm.\1'),
]
IN_MODEL = [(rf'backbone\.{pattern}', name and rf'backbone.{name}') for pattern, name in BACKBONE]
CLASSIFIER = [*IN_MODEL, (r'(head\.fc\.\w+)', r'\1')]
MIM = [
    (r'backbone\.ln1\.(\w+)', r'head.norm.\1'),
    *IN_MODEL,
    (r'head\.cls_head\.(\w+)', r'head.fc.\1'),
]
IN_BLOCK = [
    (rf'neck\.patch_aggregation{pattern.removeprefix("layers")}', f'neck.{name}')
    for pattern, name in BACKBONE
    if pattern.startswith('layers') and 'table' not in pattern
]
MIM_V2 = [(r'neck\.norm\.(\w+)', r'head.norm.\1'), *IN_BLOCK, *MIM[1:]]


def tiny_cfg(type_='BEiTViT', rel_pos_bias=None, **kwargs):
    return dict(
        type=f'mmpretrain.{type_}',
        **{'arch': dict(TINY), 'img_size': 32, 'patch_size': 8, **kwargs},
        use_rel_pos_bias=rel_pos_bias == 'per_block',
        use_shared_rel_pos_bias=rel_pos_bias == 'shared',
    )


@pytest.mark.parametrize('img_size', [32, (24, 40)])
@pytest.mark.parametrize('rel_pos_bias', ['shared', 'per_block', None])
def test_tokens_of_every_block_against_mmpretrain(rel_pos_bias, img_size):
    kwargs = dict(img_size=img_size, out_type='raw', final_norm=True, out_indices=[0, 1, 2, 3])
    theirs = randomize(MODELS.build(tiny_cfg(rel_pos_bias=rel_pos_bias, **kwargs)))
    ours = tiny_beit(rel_pos_bias=rel_pos_bias, **kwargs)
    load_renamed(ours, theirs.state_dict(), BACKBONE)
    images = torch.randn(2, 3, *theirs.img_size).double()
    close_in_double(ours.double()(images), theirs.double()(images))


@pytest.mark.parametrize('size', [(32, 32), (48, 40)])
def test_absolute_positions_against_mmpretrain(size):
    kwargs = dict(out_type='featmap', final_norm=True)
    theirs = randomize(MODELS.build(tiny_cfg(use_abs_pos_emb=True, layer_scale_init_value=0, **kwargs)))
    ours = tiny_beit(rel_pos_bias=None, abs_pos_embed=True, layer_scale=None, **kwargs)
    load_renamed(ours, theirs.state_dict(), BACKBONE)
    images = torch.randn(2, 3, *size)
    close(ours(images), theirs(images))


@pytest.mark.parametrize('out', [dict(out_type='avg_featmap'), dict(out_type='cls_token', final_norm=True)])
def test_classification_against_mmpretrain(out):
    head = dict(type='LinearClsHead', num_classes=NUM_CLASSES, in_channels=TINY['embed_dims'])
    backbone = tiny_cfg(rel_pos_bias='per_block', **out)
    theirs = randomize(MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, head=head)))
    ours = load_renamed(tiny_classifier(**out), theirs.state_dict(), CLASSIFIER)
    images = torch.randn(2, 3, 32, 32)
    close(logits_of(ours, images), logits_of(theirs, images))


def test_pretraining_logits_and_loss_against_mmpretrain():
    theirs = nn.Module()
    theirs.backbone = MODELS.build(tiny_cfg('BEiTPretrainViT', 'shared'))
    theirs.head = MODELS.build(
        dict(
            type='mmpretrain.BEiTV1Head',
            embed_dims=TINY['embed_dims'],
            num_embed=NUM_CODES,
            loss=dict(type='CrossEntropyLoss'),
        )
    )
    ours = load_renamed(tiny_mim(), randomize(theirs).state_dict(), MIM)
    images, mask = torch.randn(2, 3, 32, 32), torch.rand(2, 4, 4) < 0.4
    tokens, flat = theirs.backbone(images, mask)[0], mask.flatten(1)
    close(ours.predict_tokens(images, flat), theirs.head.cls_head(tokens[:, 1:][flat]))
    tokenizer_logits = torch.randn(2, NUM_CODES, 4, 4)
    ids = tokenizer_logits.argmax(dim=1).flatten(1)
    loss = ours.head.loss(ours.streams(images, flat), ids[flat])['loss']
    close(loss, theirs.head.loss(tokens, tokenizer_logits, mask))


def test_pretraining_logits_and_losses_of_v2_against_mmpretrain():
    theirs = nn.Module()
    cfg = tiny_cfg('BEiTPretrainViT', 'shared', final_norm=False, out_indices=[2, 3])
    theirs.backbone = MODELS.build(cfg)
    arch = {**TINY, 'depth': TINY['num_layers']}  # it asks for the one and reads the other
    theirs.neck = MODELS.build(dict(type='mmpretrain.BEiTV2Neck', early_layers=3, backbone_arch=arch))
    theirs.head = MODELS.build(
        dict(
            type='mmpretrain.BEiTV2Head',
            embed_dims=TINY['embed_dims'],
            num_embed=NUM_CODES,
            loss=dict(type='CrossEntropyLoss'),
        )
    )
    ours = load_renamed(tiny_mim(v2=True), randomize(theirs).state_dict(), MIM_V2)
    images, mask, ids = torch.randn(2, 3, 32, 32), torch.rand(2, 4, 4) < 0.4, torch.randint(NUM_CODES, (2, 16))
    tokens, flat = theirs.backbone(images, mask), mask.flatten(1)
    streams = theirs.neck(tokens, theirs.backbone.shared_rel_pos_bias)
    predicted = ours.predict_streams(images, flat)
    for logits, patches in zip(predicted.values(), streams, strict=True):
        close(logits, theirs.head.cls_head(patches[flat]))
    losses = ours.head.loss(ours.streams(images, flat), ids[flat])
    close((losses['loss_mim'], losses['loss_cls']), theirs.head.loss(*streams, ids, mask))


def test_drop_path_hits_the_mlp_branch_once_where_mmpretrain_drops_it_twice():
    """There it is both inside the feed-forward network and around it, so that a rate of 0.5 drops 75 %."""
    cfg = tiny_cfg(arch={**TINY, 'num_layers': 2}, drop_path_rate=0.5)
    theirs = randomize(MODELS.build(cfg)).layers[1]
    ours = randomize(Block(24, 3, 96, layer_scale=0.1, drop_path=0.5))
    for block in (theirs, ours):
        block.train()
    theirs.gamma_1.data.zero_()
    ours.scale1.gamma.data.zero_()
    x = torch.randn(4000, 2, 24)

    def dropped(y):
        return (y == x).flatten(1).all(dim=1).float().mean().item()

    assert dropped(ours(x)) == pytest.approx(0.5, abs=0.03)
    assert dropped(theirs(x, None)) == pytest.approx(0.75, abs=0.03)


def test_masks_reach_the_last_row_and_column_where_those_of_mmpretrain_do_not():
    random.seed(0)
    np.random.seed(0)
    theirs = TRANSFORMS.build(
        dict(
            type='mmpretrain.BEiTMaskGenerator',
            input_size=(14, 14),
            num_masking_patches=75,
            max_num_patches=75,
            min_num_patches=16,
        )
    )
    ours = BlockwiseMask(grid=14, num_masked=75, exact=True)
    mine, other = (np.mean([t.transform({})['mask'] for _ in range(300)], axis=0) for t in (ours, theirs))
    assert other[-1].max() == 0 and other[:, -1].max() == 0
    assert mine[-1].min() > 0.02 and mine[:, -1].min() > 0.02
