import pytest
import torch
from mmengine.registry import MODELS
from test_checkpoint.peers import randomize_norms
from torch import nn

SHARED = {
    'upsample_4x.0.weight',
    'upsample_4x.0.bias',
    *(f'upsample_4x.1.{name}' for name in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')),
    'upsample_4x.3.weight',
    'upsample_4x.3.bias',
    'upsample_2x.0.weight',
    'upsample_2x.0.bias',
}


def pyramid(**kwargs):
    return randomize_norms(MODELS.build(dict(type='mmbeit.FeaturePyramid', in_channels=6, **kwargs)))


def maps(h, w, count=4):
    return [torch.randn(2, 6, h, w) for _ in range(count)]


@pytest.mark.parametrize('size', [(4, 6), (5, 7)])
@pytest.mark.parametrize('training', [False, True])
def test_equals_the_pyramid_of_mmseg(size, training):
    pytest.importorskip('mmseg', reason='needs onedl-mmsegmentation, the extra `seg`')
    ours = pyramid()
    theirs = MODELS.build(dict(type='mmseg.Feature2Pyramid', embed_dim=6, norm_cfg=dict(type='BN')))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = maps(*size)
    for found, expected in zip(ours.train(training)(x), theirs.train(training)(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), theirs.buffers(), strict=True))


def test_keys_are_the_ones_that_checkpoints_are_converted_to():
    assert set(pyramid().state_dict()) == SHARED


def test_sizes_and_what_each_of_them_is_made_of():
    neck, x = pyramid(), maps(5, 1)
    outs = neck(x)
    assert [tuple(out.shape) for out in outs] == [(2, 6, 20, 4), (2, 6, 10, 2), (2, 6, 5, 1), (2, 6, 2, 1)]
    for i, out in enumerate(outs):
        changed = neck([*x[:i], torch.randn_like(x[i]), *x[i + 1 :]])
        assert [torch.equal(a, b) for a, b in zip(outs, changed, strict=True)] == [j != i for j in range(4)]
        assert out.shape[0] == 2


def test_norm_is_the_one_of_the_config_and_works_on_cpus_by_default():
    assert type(pyramid().upsample_4x[1]) is nn.BatchNorm2d
    assert isinstance(pyramid(norm_cfg=dict(type='SyncBN', requires_grad=True)).upsample_4x[1], nn.SyncBatchNorm)
    norm = pyramid(norm_cfg=dict(type='GN', num_groups=2, requires_grad=False)).upsample_4x[1]
    assert (type(norm), norm.num_groups) == (nn.GroupNorm, 2)
    assert not norm.weight.requires_grad


@pytest.mark.parametrize('count', [1, 3, 5])
def test_another_number_of_maps_is_refused(count):
    with pytest.raises(ValueError, match=f'made of 4 maps, not of {count}'):
        pyramid()(maps(4, 4, count))
