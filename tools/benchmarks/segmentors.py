"""UPerNet on BEiT, and mmseg's with the same weights. Both have mmseg's heads, without dropout."""

from collections.abc import Callable

from mmengine.registry import DefaultScope
from models import LAYER_SCALE, Arch, load, randomize
from torch import nn

from mmbeit.archs import Arch as Size
from mmbeit.archs import resolve_arch

NUM_CLASSES = 150
NORM = dict(type='BN')  # SyncBN of one process


def taps(size: Size) -> tuple[int, ...]:
    """The official ones; the last four blocks of a tiny model."""
    depth = size.num_layers
    return (depth // 3 - 1, depth // 2 - 1, 2 * depth // 3 - 1, depth - 1) if depth >= 12 else tuple(range(depth))[-4:]


def build(backbone: dict, neck: dict, dim: int) -> nn.Module:
    """mmseg's EncoderDecoder."""
    import mmseg.models  # noqa: F401, fills the registry
    from mmseg.registry import MODELS

    common = dict(
        num_classes=NUM_CLASSES,
        norm_cfg=NORM,
        align_corners=False,
        dropout_ratio=0.0,
        loss_decode=dict(type='CrossEntropyLoss'),
    )
    decoder = dict(type='UPerHead', in_channels=[dim] * 4, in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6))
    auxiliary = dict(type='FCNHead', in_channels=dim, in_index=2, channels=256, num_convs=1, concat_input=False)
    cfg = dict(
        type='EncoderDecoder',
        backbone=backbone,
        neck=neck,
        decode_head=dict(channels=dim, **decoder, **common),
        auxiliary_head=dict(**auxiliary, **common),
        test_cfg=dict(mode='whole'),
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(cfg)


def segmentor(arch: Arch, img_size: int) -> nn.Module:
    size = resolve_arch(arch)
    backbone = dict(
        type='mmbeit.BEiT',
        arch=arch,
        img_size=img_size,
        rel_pos_bias='per_block',
        layer_scale=LAYER_SCALE,
        out_type='featmap',
        out_indices=taps(size),
    )
    neck = dict(type='mmbeit.FeaturePyramid', in_channels=size.embed_dims, norm_cfg=NORM)
    return randomize(build(backbone, neck, size.embed_dims))


def mmseg_segmentor(arch: Arch, img_size: int) -> nn.Module:
    size = resolve_arch(arch)
    backbone = dict(
        type='BEiT',
        img_size=(img_size, img_size),
        patch_size=16,
        embed_dims=size.embed_dims,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        mlp_ratio=size.feedforward_channels // size.embed_dims,
        out_indices=taps(size),
        qv_bias=True,
        init_values=LAYER_SCALE,
        norm_cfg=dict(type='LN', eps=1e-6),
    )
    neck = dict(type='Feature2Pyramid', embed_dim=size.embed_dims, rescales=[4, 2, 1, 0.5], norm_cfg=NORM)
    return load(build(backbone, neck, size.embed_dims), segmentor(arch, img_size), 'mmseg')


SEGMENTORS: dict[str, Callable[[Arch, int], nn.Module]] = {'mmbeit': segmentor, 'mmseg': mmseg_segmentor}
