"""mmseg's BEiT, https://github.com/open-mmlab/mmsegmentation, models/backbones/beit.py, and what is built on it."""

from functools import partial

import pytest
import torch
from builders import load_renamed, randomize, tiny_beit
from test_checkpoint.peers import build_in_mmseg, mmseg_backbone_cfg, randomize_norms, tiny_mmseg, tiny_segmentor

pytest.importorskip('mmseg', reason='needs onedl-mmsegmentation, the extra `seg`')
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)

TAPS = (3, 5, 7, 11)  # of the official base models
ARCH = dict(embed_dims=24, num_layers=12, num_heads=3, feedforward_channels=96)
BACKBONE = [
    (r'cls_token', 'cls_token'),
    (r'patch_embed\.projection\.(\w+)', r'patch_embed.proj.\1'),
    (r'layers\.(\d+)\.ln([12])\.(\w+)', r'blocks.\1.norm\2.\3'),
    (r'layers\.(\d+)\.gamma_([12])', r'blocks.\1.scale\2.gamma'),
    (r'layers\.(\d+)\.ffn\.layers\.0\.0\.(\w+)', r'blocks.\1.mlp.fc1.\2'),
    (r'layers\.(\d+)\.ffn\.layers\.1\.(\w+)', r'blocks.\1.mlp.fc2.\2'),
    (r'layers\.(\d+)\.attn\.relative_position_bias_table', r'rel_pos_bias.\1.table'),
    (r'layers\.(\d+)\.attn\.relative_position_index', None),
    (r'layers\.(\d+)\.attn\.(q_bias|v_bias|qkv\.weight|proj\.\w+)', r'blocks.\1.attn.\2'),
]
SEGMENTOR = [
    *((rf'backbone\.{pattern}', name and rf'backbone.{name}') for pattern, name in BACKBONE),
    (r'((neck|decode_head|auxiliary_head)\..*)', r'\1'),
]


def test_maps_after_the_official_blocks_at_512_pixels():
    theirs = build_in_mmseg(mmseg_backbone_cfg(img_size=(512, 512), patch_size=16, num_layers=12, out_indices=TAPS))
    randomize(theirs, std=0.15)
    ours = tiny_beit(arch=ARCH, img_size=512, patch_size=16, out_type='featmap', out_indices=TAPS)
    load_renamed(ours, theirs.state_dict(), BACKBONE)
    images = torch.randn(1, 3, 512, 512)
    maps = ours(images)
    assert [tuple(m.shape) for m in maps] == [(1, 24, 32, 32)] * 4
    for found, expected in zip(maps, theirs(images), strict=True):
        assert expected.std() > 0.1
        close(found, expected)


def test_losses_and_gradients_of_a_training_step():
    """Through the decoder, the auxiliary head and norms in training mode, with labels to ignore."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    theirs, ours = tiny_mmseg(), tiny_segmentor()
    randomize_norms(theirs)
    load_renamed(ours, theirs.state_dict(), SEGMENTOR)
    images, labels = torch.randn(2, 3, 32, 32), torch.randint(0, 7, (2, 1, 32, 32))
    labels[:, :, :5] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    weights = {  # theirs and ours
        'decode_head.conv_seg.weight': 'decode_head.conv_seg.weight',
        'neck.upsample_4x.0.weight': 'neck.upsample_4x.0.weight',
        'backbone.layers.0.attn.relative_position_bias_table': 'backbone.rel_pos_bias.0.table',
    }
    losses = []
    for model in (theirs, ours):
        for module in model.modules():
            module.training = not isinstance(module, torch.nn.Dropout2d)  # it draws; and mmseg's `train` returns None
        losses.append(model.loss(images, samples))
        sum(value for name, value in losses[-1].items() if 'loss' in name).backward()
    close(*losses)
    for there, here in weights.items():
        expected = theirs.get_parameter(there).grad
        assert expected.abs().max() > 0
        torch.testing.assert_close(ours.get_parameter(here).grad, expected, rtol=1e-4, atol=1e-5)
