"""Features against the official definition, the backbone by itself, and what they depend on."""

import dataclasses

import numpy as np
import pytest
import torch
from builders import tiny_beit, tiny_classifier, tiny_mim
from builders_beit3 import tiny_beit3
from PIL import Image
from torch import nn

from mmbeit.apis.data import DataConfig
from mmbeit.models.heads.linear_probe import LinearProbeHead
from mmbeit.probing.extraction import Extractor, fingerprint, read_batches
from mmbeit.probing.images import read_images

DATA = DataConfig((100, 110, 120), (50, 55, 60), 32)


def pixels(count=3):
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)


@pytest.mark.parametrize('final_norm', [False, True])
def test_pooled_features_are_those_of_the_official_probe(final_norm):
    backbone = tiny_beit(final_norm=final_norm)
    images = pixels()
    extractor = Extractor(backbone, DATA)
    features = extractor(extractor.pooled(), images)
    assert features.shape == (3, *extractor.pooled().shape) == (3, 4, 48)
    assert features.dtype == torch.float32 and not features.requires_grad
    backbone.norm = nn.Identity()  # features of a probe are not normalised
    with torch.no_grad():
        tokens = backbone.block_tokens(DATA.normalize(images), None, range(4))
    expected = LinearProbeHead(num_classes=3, in_channels=24, num_blocks=4).pre_logits(tokens)
    torch.testing.assert_close(features, torch.stack(expected, dim=1), rtol=0, atol=0)


@pytest.mark.parametrize('block', [0, 2, 3])
@pytest.mark.parametrize('size', [32, (40, 24)])
@pytest.mark.parametrize('build', [tiny_beit, tiny_beit3])
def test_patches_are_those_of_the_backbone(build, block, size):
    backbone = build()
    block = min(block, len(backbone.blocks) - 1)
    backbone.norm = nn.Identity()
    data = DATA.at_size(size)
    images = torch.randint(0, 256, (2, 3, *data.size), dtype=torch.uint8)
    extractor = Extractor(backbone, data)
    patches = extractor(extractor.patches(block), images)
    assert patches.shape[1:] == extractor.patches(block).shape
    with torch.no_grad():
        (expected,) = backbone.block_tokens(data.normalize(images), None, [block])
    torch.testing.assert_close(patches, expected[:, 1:], rtol=0, atol=0)


def test_backbone_is_left_as_it_was():
    backbone = tiny_beit()
    extractor = Extractor(backbone, DATA)
    extractor(extractor.pooled(), pixels())
    with pytest.raises(ValueError, match='whole number of patches'):
        extractor(extractor.pooled(), pixels()[..., :5])
    assert not any(block._forward_hooks for block in backbone.blocks)


def test_blocks_after_the_one_asked_for_are_not_run():
    backbone = tiny_beit()
    backbone.blocks[2].register_forward_pre_hook(lambda *_: pytest.fail('block 2 was run'))
    extractor = Extractor(backbone, DATA)
    extractor(extractor.patches(1), pixels())


def test_autocast_is_near_and_stays_off_without_being_asked_for():
    backbone = tiny_beit()
    images = pixels()
    exact, rough = (Extractor(backbone, DATA, amp) for amp in (False, True))
    a, b = (extractor(extractor.pooled(), images) for extractor in (exact, rough))
    assert b.dtype == torch.float32
    assert 0 < float((a - b).norm() / a.norm()) < 0.05


def test_fingerprint_is_of_the_weights_that_are_used():
    backbone = tiny_beit(mask_token=True, final_norm=True)
    first = fingerprint(backbone)
    for name in ('mask_token', 'norm.weight', 'fc_norm.bias'):
        with torch.no_grad():
            backbone.get_parameter(name).add_(1)
        assert fingerprint(backbone) == first, name
    for name, parameter in backbone.named_parameters():
        if name.startswith(('mask_token', 'norm.', 'fc_norm.')):
            continue
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-3
            assert fingerprint(backbone) != first, name
            parameter.view(-1)[-1] -= 1e-3
        first = fingerprint(backbone)
    assert fingerprint(tiny_beit()) != first


def test_fingerprint_of_what_a_state_dict_does_not_show():
    arch = dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)
    one = tiny_beit(arch=arch, rel_pos_bias=None)
    other = tiny_beit(arch={**arch, 'num_heads': 6}, rel_pos_bias=None)
    other.load_state_dict(one.state_dict())
    assert fingerprint(one) != fingerprint(other)


def test_a_classifier_and_a_pretraining_model_are_told_by_their_backbones_alone():
    classifier, mim = tiny_classifier(rel_pos_bias='shared'), tiny_mim()
    mim.backbone.load_state_dict(classifier.backbone.state_dict(), strict=False)
    assert fingerprint(mim.backbone) == fingerprint(classifier.backbone)


def test_identity_is_of_the_geometry_and_the_precision():
    backbone = tiny_beit()
    others = [
        Extractor(backbone, DATA, amp=True),
        *(
            Extractor(backbone, dataclasses.replace(DATA, **change))
            for change in (dict(mean=(0,) * 3), dict(size=40), dict(crop=1.0), dict(interpolation='bilinear'))
        ),
    ]
    assert all(other.identity != Extractor(backbone, DATA).identity for other in others)


@pytest.mark.parametrize('num_workers', [0, 2])
def test_images_are_read_in_order_and_bad_ones_are_told_of(tmp_path, num_workers):
    draw = np.random.default_rng(0)
    (tmp_path / 'a').mkdir()
    for i in range(7):
        Image.fromarray(draw.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / 'a' / f'{i}.png')
    for i in (2, 4, 5):
        (tmp_path / 'a' / f'{i}.png').write_bytes(b'broken')
    images = read_images(tmp_path)
    batches = list(read_batches(images, DATA, [[6, 2, 0], [4, 5], [1]], num_workers))
    assert [numbers for numbers, _, _ in batches] == [[6, 0], [], [1]]
    assert [len(problems) for *_, problems in batches] == [1, 2, 0]
    assert batches[0][2][0].startswith(f'cannot read image {tmp_path}/a/2.png: ')
    assert batches[1][1] is None
    expected = DATA([Image.open(tmp_path / 'a' / f'{i}.png') for i in (6, 0)])
    torch.testing.assert_close(DATA.normalize(batches[0][1]), expected, rtol=0, atol=0)
