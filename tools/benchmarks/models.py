"""Models of mmbeit, and of its peers with the same weights."""

from collections.abc import Callable
from functools import partial

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

import mmbeit.models  # noqa: F401, fills the registry
from mmbeit.archs import resolve_arch
from mmbeit.checkpoint.formats import from_ours
from mmbeit.layers.embeddings import substitute_masked
from mmbeit.layers.masked import find_masked

Arch = str | dict
NUM_CODES = 8192
NUM_ANSWERS = 3129
LAYER_SCALE = 0.1
NUM_NECK_LAYERS = 2


def early_block(arch: Arch) -> int:
    """After which block, 1-based, the neck of v2 takes the patches."""
    return resolve_arch(arch).num_layers * 3 // 4


def randomize(model: nn.Module) -> nn.Module:
    """Draw every parameter, norms and layer scales included, so that a mistake anywhere changes the output."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(0.02 * noise)
            else:
                parameter.copy_((1 if 'norm' in name and name.endswith('weight') else LAYER_SCALE) + 0.02 * noise)
    return model


def load(peer: nn.Module, ours: nn.Module, format_: str) -> nn.Module:
    """Give a peer the weights of ours. What it has and we do not are indices that follow from the size."""
    state, _ = from_ours(ours.state_dict(), format_)
    missing, unexpected = peer.load_state_dict(state, strict=False)
    parameters = dict(peer.named_parameters())
    if unexpected or any(name in parameters for name in missing):
        raise RuntimeError(f'{type(peer).__name__}: {unexpected[:3]} are not expected, {missing[:3]} are missing')
    return peer


def load_transformers(cls: type, config: object, ours: nn.Module) -> nn.Module:
    """Likewise; its models rename what was saved while they load."""
    state, _ = from_ours(ours.state_dict(), 'hf')
    return cls.from_pretrained(None, config=config, state_dict=state)


# ---- classification ----


def classifier(arch: Arch = 'base', img_size: int = 224, drop_path: float = 0.0) -> nn.Module:
    backbone = dict(
        type='mmbeit.BEiT',
        arch=arch,
        img_size=img_size,
        rel_pos_bias='per_block',
        layer_scale=LAYER_SCALE,
        out_type='avg_featmap',
        drop_path_rate=drop_path,
    )
    dim = resolve_arch(arch).embed_dims
    head = dict(type='LinearClsHead', num_classes=1000, in_channels=dim, loss=dict(type='CrossEntropyLoss'))
    return randomize(MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, head=head)))


def timm_classifier(arch: Arch, img_size: int, drop_path: float = 0.0) -> nn.Module:
    from timm.models.beit import Beit

    size = resolve_arch(arch)
    model = Beit(
        img_size=img_size,
        patch_size=16,
        embed_dim=size.embed_dims,
        depth=size.num_layers,
        num_heads=size.num_heads,
        num_classes=1000,
        use_abs_pos_emb=False,
        use_rel_pos_bias=True,
        init_values=LAYER_SCALE,
        drop_path_rate=drop_path,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    return load(model, classifier(arch, img_size), 'timm')


def hf_config(arch: Arch, img_size: int, **kwargs):
    import transformers

    size = resolve_arch(arch)
    return transformers.BeitConfig(
        hidden_size=size.embed_dims,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        intermediate_size=size.feedforward_channels,
        image_size=img_size,
        patch_size=16,
        vocab_size=NUM_CODES,
        layer_norm_eps=1e-6,
        layer_scale_init_value=LAYER_SCALE,
        attention_probs_dropout_prob=0.0,
        attn_implementation='sdpa',
        **kwargs,
    )


def transformers_classifier(arch: Arch, img_size: int, drop_path: float = 0.0) -> nn.Module:
    import transformers

    config = hf_config(
        arch,
        img_size,
        num_labels=1000,
        use_relative_position_bias=True,
        use_mean_pooling=True,
        drop_path_rate=drop_path,
    )
    return load_transformers(transformers.BeitForImageClassification, config, classifier(arch, img_size))


def mmpretrain_classifier(arch: Arch, img_size: int, drop_path: float = 0.0) -> nn.Module:
    backbone = dict(
        type='mmpretrain.BEiTViT',
        arch=resolve_arch(arch)._asdict(),
        img_size=img_size,
        patch_size=16,
        out_type='avg_featmap',
        use_abs_pos_emb=False,
        use_rel_pos_bias=True,
        layer_scale_init_value=LAYER_SCALE,
        drop_path_rate=drop_path,
    )
    dim = resolve_arch(arch).embed_dims
    head = dict(type='LinearClsHead', num_classes=1000, in_channels=dim)
    model = MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, head=head))
    return load(model, classifier(arch, img_size), 'mmpretrain')


CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {
    'mmbeit': classifier,
    'timm': timm_classifier,
    'transformers': transformers_classifier,
    'mmpretrain': mmpretrain_classifier,
}


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    out = model(images)
    return out if isinstance(out, Tensor) else out.logits


# ---- pretraining ----


class Pretraining(nn.Module):
    """What a step of pretraining needs of a model: the loss of views, masks (B, N) bool, and ids (B, N)."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]):
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, view: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        return self._loss(self.model, view, mask, ids)


def pretrained(arch: Arch = 'base', version: int = 1, drop_path: float = 0.0) -> nn.Module:
    """Our model, without the tokenizer, of which peers have none."""
    neck = dict(type='mmbeit.PatchAggregationNeck', num_layers=NUM_NECK_LAYERS, early_layers=early_block(arch))
    cfg = dict(
        type='mmbeit.MaskedImageModeling',
        backbone=dict(
            type='mmbeit.BEiT',
            arch=arch,
            rel_pos_bias='shared',
            layer_scale=LAYER_SCALE,
            mask_token=True,
            out_type='raw',
            drop_path_rate=drop_path,
        ),
        neck=neck if version == 2 else None,
        head=dict(type='mmbeit.MIMHead', num_codes=NUM_CODES),
    )
    return randomize(MODELS.build(cfg))


def our_loss(model: nn.Module, view: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
    masked = find_masked(mask, view.device)
    losses = model.head.loss(model.streams(view, mask, masked), ids.flatten()[masked.places])
    return sum(value for name, value in losses.items() if name.startswith('loss'))


def mmbeit_pretraining(arch: Arch, version: int, drop_path: float) -> Pretraining:
    return Pretraining(pretrained(arch, version, drop_path), our_loss)


def mmpretrain_pretraining(arch: Arch, version: int, drop_path: float) -> Pretraining:
    size = resolve_arch(arch)
    model = nn.Module()
    model.backbone = MODELS.build(
        dict(
            type='mmpretrain.BEiTPretrainViT',
            arch=size._asdict(),
            patch_size=16,
            out_indices=[early_block(arch) - 1, -1] if version == 2 else -1,
            final_norm=version == 1,
            use_rel_pos_bias=False,
            use_shared_rel_pos_bias=True,
            layer_scale_init_value=LAYER_SCALE,
            drop_path_rate=drop_path,
        )
    )
    head = dict(embed_dims=size.embed_dims, num_embed=NUM_CODES, loss=dict(type='CrossEntropyLoss'))
    if version == 2:
        model.neck = MODELS.build(
            dict(
                type='mmpretrain.BEiTV2Neck',
                num_layers=NUM_NECK_LAYERS,
                early_layers=early_block(arch),
                backbone_arch=dict(depth=size.num_layers, **size._asdict()),
                layer_scale_init_value=LAYER_SCALE,
                drop_path_rate=drop_path,
            )
        )
    model.head = MODELS.build(dict(type=f'mmpretrain.BEiTV{version}Head', **head))
    return Pretraining(load(model, pretrained(arch, version), 'mmpretrain'), mmpretrain_loss)


def mmpretrain_loss(model: nn.Module, view: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
    """As in its `BEiT` (mmpretrain:models/selfsup/beit.py); its head of v1 would take logits and find their maxima."""
    feats, head = model.backbone(view, mask), model.head
    if not hasattr(model, 'neck'):
        return head.loss_module(head.cls_head(feats[0][:, 1:][mask]), ids[mask])
    feats, cls_feats = model.neck(feats, rel_pos_bias=model.backbone.shared_rel_pos_bias)
    return sum(head.loss(feats, cls_feats, ids, mask))


def transformers_pretraining(arch: Arch, version: int, drop_path: float) -> Pretraining:
    import transformers

    config = hf_config(arch, 224, use_mask_token=True, use_shared_relative_position_bias=True, drop_path_rate=drop_path)
    model = load_transformers(transformers.BeitForMaskedImageModeling, config, pretrained(arch, 1))
    return Pretraining(model, lambda model, view, mask, ids: model(view, mask, labels=ids[mask]).loss)


class TimmPretraining(nn.Module):
    """timm has the blocks only: a mask token and our head make the model of them."""

    def __init__(self, arch: Arch, drop_path: float):
        super().__init__()
        from timm.models.beit import Beit

        size = resolve_arch(arch)
        ours = pretrained(arch, 1)
        self.backbone = Beit(
            patch_size=16,
            embed_dim=size.embed_dims,
            depth=size.num_layers,
            num_heads=size.num_heads,
            num_classes=0,
            use_abs_pos_emb=False,
            use_shared_rel_pos_bias=True,
            init_values=LAYER_SCALE,
            drop_path_rate=drop_path,
            global_pool='token',
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        state = {}
        for key, value in ours.backbone.state_dict().items():
            for old, new in (
                ('.scale1.gamma', '.gamma_1'),
                ('.scale2.gamma', '.gamma_2'),
                ('rel_pos_bias.0.table', 'rel_pos_bias.relative_position_bias_table'),
            ):
                key = key.replace(old, new)
            state[key] = value
        self.mask_token = nn.Parameter(state.pop('mask_token'))
        self.backbone.load_state_dict({k: v for k, v in state.items() if not k.endswith('.grid')}, strict=False)
        self.backbone.norm = nn.Identity()
        self.head = ours.head

    def tokens(self, view: Tensor, mask: Tensor) -> Tensor:
        """Its `forward_features`, with the mask tokens in their places."""
        backbone = self.backbone
        x = substitute_masked(backbone.patch_embed(view), mask, self.mask_token)
        x = torch.cat([backbone.cls_token.expand(len(x), -1, -1), x], dim=1)
        bias = backbone.rel_pos_bias()
        for block in backbone.blocks:
            x = block(x, shared_rel_pos_bias=bias)
        return x


def timm_pretraining(arch: Arch, version: int, drop_path: float) -> Pretraining:
    return Pretraining(TimmPretraining(arch, drop_path), timm_loss)


def timm_loss(model: nn.Module, view: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
    return model.head.loss({'mim': model.tokens(view, mask)[:, 1:][mask]}, ids[mask])['loss']


PRETRAINING: dict[str, Callable[[Arch, int, float], Pretraining]] = {
    'mmbeit': mmbeit_pretraining,
    'timm': timm_pretraining,
    'transformers': transformers_pretraining,
    'mmpretrain': mmpretrain_pretraining,
}
V2_PEERS = ('mmbeit', 'mmpretrain')  # nobody else has patch aggregation


# ---- what no peer trains ----


def tokenizer(arch: Arch) -> nn.Module:
    """VQ-KD, with a BEiT of its size for the teacher."""
    size = resolve_arch(arch)
    cfg = dict(
        type='mmbeit.VQKD',
        tokenizer=dict(arch=arch, num_codes=NUM_CODES),
        num_decoder_layers=1,
        teacher=dict(
            type='mmbeit.BEiTTeacher',
            backbone=dict(arch=size._asdict(), rel_pos_bias='shared'),
            mean=[0.5] * 3,
            std=[0.5] * 3,
        ),
    )
    return randomize(MODELS.build(cfg))


def answerer(arch: Arch, img_size: int) -> nn.Module:
    """BEiT-3 for VQA."""
    cfg = dict(
        type='mmbeit.FusionEncoder',
        backbone=dict(type='mmbeit.BEiT3', arch=arch, img_size=img_size, final_norm=False),
        neck=dict(type='mmbeit.Pooler'),
        head=dict(type='mmbeit.VQAHead', num_classes=NUM_ANSWERS),
    )
    return randomize(MODELS.build(cfg))
