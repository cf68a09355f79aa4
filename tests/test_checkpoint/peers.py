"""Tiny random models of other projects, and models of ours of the same shape."""

import contextlib
from functools import partial

import torch
from builders import NUM_CLASSES, NUM_CODES, TINY, randomize, tiny_backbone_cfg
from mmengine.registry import MODELS
from torch import Tensor, nn


def hf_state(model: nn.Module, folder) -> dict[str, Tensor]:
    """What `save_pretrained` writes: the names on disk."""
    from safetensors.torch import load_file

    model.save_pretrained(folder)
    return load_file(folder / 'model.safetensors')


def tiny_hf(cls: str, **kwargs) -> nn.Module:
    import transformers

    config = dict(
        hidden_size=TINY['embed_dims'],
        num_hidden_layers=TINY['num_layers'],
        num_attention_heads=TINY['num_heads'],
        intermediate_size=TINY['feedforward_channels'],
        image_size=32,
        patch_size=8,
        vocab_size=NUM_CODES,
        num_labels=NUM_CLASSES,
        layer_norm_eps=1e-6,
    )
    return randomize(getattr(transformers, cls)(transformers.BeitConfig(**{**config, **kwargs})))


def tiny_timm(**kwargs) -> nn.Module:
    from timm.models.beit import Beit

    config = dict(
        embed_dim=TINY['embed_dims'],
        depth=TINY['num_layers'],
        num_heads=TINY['num_heads'],
        img_size=32,
        patch_size=8,
        num_classes=NUM_CLASSES,
        use_abs_pos_emb=False,
        use_rel_pos_bias=True,
        init_values=0.1,
    )
    return randomize(Beit(**{**config, **kwargs}, norm_layer=partial(nn.LayerNorm, eps=1e-6)))


def mm_backbone_cfg(type_: str = 'BEiTViT', **kwargs) -> dict:
    return dict(type=f'mmpretrain.{type_}', **{'arch': dict(TINY), 'img_size': 32, 'patch_size': 8, **kwargs})


def tiny_mm_classifier(**kwargs) -> nn.Module:
    head = dict(type='LinearClsHead', num_classes=NUM_CLASSES, in_channels=TINY['embed_dims'])
    backbone = mm_backbone_cfg(**{'out_type': 'avg_featmap', **kwargs})
    return randomize(MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, head=head)))


def tiny_mm_mim(v2: bool = False) -> nn.Module:
    shared = dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
    model = nn.Module()
    head = dict(embed_dims=TINY['embed_dims'], num_embed=NUM_CODES, loss=dict(type='CrossEntropyLoss'))
    if v2:
        model.backbone = MODELS.build(mm_backbone_cfg('BEiTPretrainViT', final_norm=False, **shared))
        # Its neck wants 'depth' next to 'num_layers', and lists both in its own table only.
        arch = {**TINY, 'depth': TINY['num_layers']}
        model.neck = MODELS.build(dict(type='mmpretrain.BEiTV2Neck', num_layers=2, early_layers=3, backbone_arch=arch))
        model.head = MODELS.build(dict(type='mmpretrain.BEiTV2Head', **head))
    else:
        model.backbone = MODELS.build(mm_backbone_cfg('BEiTPretrainViT', **shared))
        model.head = MODELS.build(dict(type='mmpretrain.BEiTV1Head', **head))
    return randomize(model)


def tiny_mm_vqkd() -> nn.Module:
    encoder = dict(
        arch=dict(TINY),
        img_size=32,
        patch_size=8,
        out_type='featmap',
        layer_scale_init_value=0.0,
        use_abs_pos_emb=True,
        use_rel_pos_bias=False,
        final_norm=True,
    )
    config = dict(type='mmpretrain.VQKD', encoder_config=encoder, num_embed=NUM_CODES, embed_dims=8)
    return randomize(MODELS.build(config))


BN = dict(type='BN', requires_grad=True)


def segmentor_cfg(backbone: dict, neck: dict) -> dict:
    dim = TINY['embed_dims']
    norm = BN
    loss = dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True)
    head = dict(num_classes=NUM_CLASSES, norm_cfg=norm, align_corners=False, loss_decode=loss)
    return dict(
        type='mmseg.EncoderDecoder',
        backbone=backbone,
        neck=neck,
        decode_head=dict(
            type='mmseg.UPerHead',
            in_channels=[dim] * 4,
            in_index=[0, 1, 2, 3],
            pool_scales=(1, 2, 3, 6),
            channels=dim,
            **head,
        ),
        auxiliary_head=dict(
            type='mmseg.FCNHead',
            in_channels=dim,
            in_index=2,
            channels=16,
            num_convs=1,
            concat_input=False,
            **head,
        ),
        test_cfg=dict(mode='whole'),
    )


def randomize_norms(module: nn.Module) -> nn.Module:
    """Statistics of batch norms, too; kernels so small that logits stay near 1."""
    randomize(module)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 4:
                parameter.mul_(3 / parameter[0].numel() ** 0.5)
    for name, buffer in module.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=0.3)
        elif name.endswith('running_var'):
            buffer.uniform_(0.5, 2)
    return module


def mmseg_backbone_cfg(**kwargs) -> dict:
    config = dict(
        img_size=(32, 32),
        patch_size=8,
        embed_dims=TINY['embed_dims'],
        num_layers=TINY['num_layers'],
        num_heads=TINY['num_heads'],
        mlp_ratio=4,
        out_indices=(0, 1, 2, 3),
        qv_bias=True,
        init_values=0.1,
        norm_cfg=dict(type='LN', eps=1e-6),
    )
    return dict(type='mmseg.BEiT', **{**config, **kwargs})


def tiny_mmseg() -> nn.Module:
    neck = dict(type='mmseg.Feature2Pyramid', embed_dim=TINY['embed_dims'], rescales=[4, 2, 1, 0.5], norm_cfg=BN)
    return randomize_norms(build_in_mmseg(segmentor_cfg(mmseg_backbone_cfg(), neck)))


def tiny_segmentor(**kwargs) -> nn.Module:
    """mmseg's EncoderDecoder around our backbone and our neck."""
    backbone = tiny_backbone_cfg(**{'out_type': 'featmap', 'out_indices': (0, 1, 2, 3), **kwargs})
    neck = dict(type='mmbeit.FeaturePyramid', in_channels=TINY['embed_dims'])
    return randomize_norms(build_in_mmseg(segmentor_cfg(backbone, neck)))


def build_in_mmseg(cfg: dict) -> nn.Module:
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS as MMSEG

    with contextlib.ExitStack() as stack:
        stack.enter_context(DefaultScope.overwrite_default_scope('mmseg'))
        return MMSEG.build(cfg)


def tiny_flava() -> nn.Module:
    import transformers

    config = transformers.FlavaImageCodebookConfig(hidden_size=8, vocab_size=NUM_CODES)
    return randomize(transformers.FlavaImageCodebook(config), std=0.2)


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {key: torch.randn(shape) for key, shape in shapes.items()}
