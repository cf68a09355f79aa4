"""Keys and shapes of official files, written down from microsoft/unilm: beit/ and beit2/ modeling_*.py."""

from collections.abc import Iterator

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def block(at: str, dim: int, layer_scale: bool = True) -> Shapes:
    shapes = {
        'norm1.weight': (dim,),
        'norm1.bias': (dim,),
        'attn.q_bias': (dim,),
        'attn.v_bias': (dim,),
        'attn.qkv.weight': (3 * dim, dim),
        'attn.proj.weight': (dim, dim),
        'attn.proj.bias': (dim,),
        'norm2.weight': (dim,),
        'norm2.bias': (dim,),
        'mlp.fc1.weight': (4 * dim, dim),
        'mlp.fc1.bias': (4 * dim,),
        'mlp.fc2.weight': (dim, 4 * dim),
        'mlp.fc2.bias': (dim,),
    }
    if layer_scale:
        shapes |= {'gamma_1': (dim,), 'gamma_2': (dim,)}
    return {f'{at}.{name}': shape for name, shape in shapes.items()}


def table(at: str, heads: int, side: int) -> Shapes:
    return {
        f'{at}.relative_position_bias_table': ((2 * side - 1) ** 2 + 3, heads),
        f'{at}.relative_position_index': (side**2 + 1, side**2 + 1),
    }


def linear(at: str, out: int, dim: int) -> Shapes:
    return {f'{at}.weight': (out, dim), f'{at}.bias': (out,)}


def norm(at: str, dim: int) -> Shapes:
    return {f'{at}.weight': (dim,), f'{at}.bias': (dim,)}


def stem(dim: int, patch: int = 16, channels: int = 3, at: str = '') -> Shapes:
    return {
        f'{at}cls_token': (1, 1, dim),
        f'{at}patch_embed.proj.weight': (dim, channels, patch, patch),
        f'{at}patch_embed.proj.bias': (dim,),
    }


def blocks(dim: int, depth: int, at: str = 'blocks', layer_scale: bool = True) -> Shapes:
    return {key: shape for i in range(depth) for key, shape in block(f'{at}.{i}', dim, layer_scale).items()}


def mim(dim: int = 768, depth: int = 12, heads: int = 12, codes: int = 8192, v2: bool = False, shared: bool = True):
    shapes = stem(dim) | blocks(dim, depth) | table('rel_pos_bias', heads, 14)
    shapes |= {'mask_token': (1, 1, dim)} | norm('norm', dim) | linear('lm_head', codes, dim)
    if v2:
        shapes |= blocks(dim, 2, 'cls_pt_layers')
    if not shared:
        shapes |= norm('cls_pt_norm', dim) | linear('cls_pt_lm_head', codes, dim)
    return shapes


def classifier(
    dim: int = 768, depth: int = 12, heads: int = 12, classes: int = 1000, side: int = 14, use_cls: bool = False
) -> Shapes:
    shapes = stem(dim) | blocks(dim, depth) | linear('head', classes, dim)
    for i in range(depth):
        shapes |= table(f'blocks.{i}.attn', heads, side)
    return shapes | norm('norm' if use_cls else 'fc_norm', dim)


def vqkd(dim: int = 768, depth: int = 12, decoder_depth: int = 1, target: int = 512) -> Shapes:
    shapes = {}
    for at, blocks_of, patch, channels in (('encoder', depth, 16, 3), ('decoder', decoder_depth, 1, 32)):
        shapes |= stem(dim, patch, channels, f'{at}.') | {f'{at}.pos_embed': (1, 197, dim)}
        shapes |= blocks(dim, blocks_of, f'{at}.blocks', layer_scale=False) | norm(f'{at}.fc_norm', dim)
    shapes |= linear('encode_task_layer.0', dim, dim) | linear('encode_task_layer.2', 32, dim)
    shapes |= linear('decode_task_layer.0', dim, dim) | linear('decode_task_layer.2', target, dim)
    return shapes | {
        'quantize.embedding.weight': (8192, 32),
        'quantize.embedding.initted': (1,),
        'quantize.cluster_size': (8192,),
        'quantize.embedding.cluster_size': (8192,),
        'quantize.embedding.embed_avg': (8192, 32),
    }


def conv(at: str, out: int, channels: int, kernel: int) -> Shapes:
    return {f'{at}.conv.weight': (out, channels, kernel, kernel)} | batch_norm(f'{at}.bn', out)


def batch_norm(at: str, dim: int) -> Shapes:
    names = ('weight', 'bias', 'running_mean', 'running_var')
    return {f'{at}.{name}': (dim,) for name in names} | {f'{at}.num_batches_tracked': ()}


def segmentor(dim: int = 768, depth: int = 12, heads: int = 12, side: int = 40, classes: int = 150) -> Shapes:
    backbone = stem(dim) | blocks(dim, depth)
    for i in range(depth):
        backbone |= table(f'blocks.{i}.attn', heads, side)
    backbone |= {'fpn1.0.weight': (dim, dim, 2, 2), 'fpn1.0.bias': (dim,)} | batch_norm('fpn1.1', dim)
    for at in ('fpn1.3', 'fpn2.0'):
        backbone |= {f'{at}.weight': (dim, dim, 2, 2), f'{at}.bias': (dim,)}
    shapes = {f'backbone.{key}': shape for key, shape in backbone.items()}
    for i in range(4):
        shapes |= conv(f'decode_head.psp_modules.{i}.1', dim, dim, 1)
    shapes |= conv('decode_head.bottleneck', dim, 5 * dim, 3)
    for i in range(3):
        shapes |= conv(f'decode_head.lateral_convs.{i}', dim, dim, 1)
        shapes |= conv(f'decode_head.fpn_convs.{i}', dim, dim, 3)
    shapes |= conv('decode_head.fpn_bottleneck', dim, 4 * dim, 3) | conv('auxiliary_head.convs.0', 256, dim, 3)
    for at, width in (('decode_head', dim), ('auxiliary_head', 256)):
        shapes |= {f'{at}.conv_seg.weight': (classes, width, 1, 1), f'{at}.conv_seg.bias': (classes,)}
    return shapes


def dvae_encoder(width: int = 256, codes: int = 8192) -> Shapes:
    def conv(at: str, out: int, channels: int, kernel: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f'{at}.w', (out, channels, kernel, kernel)
        yield f'{at}.b', (out,)

    shapes = dict(conv('blocks.input', width, 3, 7)) | dict(conv('blocks.output.conv', codes, 8 * width, 1))
    before = width
    for group, after in enumerate((width, 2 * width, 4 * width, 8 * width), 1):
        for i in (1, 2):
            at, hidden = f'blocks.group_{group}.block_{i}', after // 4
            if before != after:
                shapes |= conv(f'{at}.id_path', after, before, 1)
            for k, (out, channels, kernel) in enumerate(
                ((hidden, before, 3), (hidden, hidden, 3), (hidden, hidden, 3), (after, hidden, 1)), 1
            ):
                shapes |= conv(f'{at}.res_path.conv_{k}', out, channels, kernel)
            before = after
    return shapes


def random(shapes: Shapes) -> dict[str, Tensor]:
    """Random weights of these shapes; the index buffers are right."""
    from mmbeit.layers.position import relative_index

    state = {}
    for key, shape in shapes.items():
        if key.endswith('relative_position_index'):
            side = round((shape[0] - 1) ** 0.5)
            state[key] = relative_index((side, side)).clone()
        elif key.endswith('num_batches_tracked'):
            state[key] = torch.tensor(7)
        else:
            state[key] = torch.randn(shape) * 0.1
    return state
