"""What every kind of model consists of, and what every format calls it.

A layout is written once, under our names. A format is one function for the backbone, and a few rows for what a kind
adds to it. Sources: microsoft/unilm beit/ and beit2/; transformers models/beit (the names on disk first, which are
written; those of 5.x in memory are read, too); timm models/beit.py; mmpretrain; mmsegmentation.

In letters of shapes: D width, F hidden width, H heads, R rows of a position table, T tokens, C channels, P patch.
"""

import torch
from torch import Tensor

from mmbeit.checkpoint.keymap import Drop, Fuse, Make, Rename, Row, Split, Table, both
from mmbeit.checkpoint.layout import Entry, Layout
from mmbeit.layers.position import grid_of_table, relative_index

# ---- layouts ----


def pair(key: str, weight: str, optional: str = '') -> list[Entry]:
    """A weight, and a bias of its first dimension."""
    return [
        Entry(f'{key}.weight', weight, optional),
        Entry(f'{key}.bias', weight.split()[0], optional),
    ]


def block_layout(prefix: str, group: str) -> list[Entry]:
    return [
        *pair(f'{prefix}.norm1', 'D'),
        Entry(f'{prefix}.attn.qkv.weight', '3D D'),
        Entry(f'{prefix}.attn.q_bias', 'D'),
        Entry(f'{prefix}.attn.v_bias', 'D'),
        *pair(f'{prefix}.attn.proj', 'D D'),
        *pair(f'{prefix}.norm2', 'D'),
        *pair(f'{prefix}.mlp.fc1', 'F D'),
        *pair(f'{prefix}.mlp.fc2', 'D F'),
        Entry(f'{prefix}.scale1.gamma', 'D', f'{group} layer scale'),
        Entry(f'{prefix}.scale2.gamma', 'D', f'{group} layer scale'),
    ]


def backbone_layout(name: str) -> list[Entry]:
    blocks = f'{name}.blocks.{{}}'
    table = f'{name}.rel_pos_bias.{{}}'
    return [
        Entry(f'{name}.cls_token', '1 1 D'),
        Entry(f'{name}.mask_token', '1 1 D', f'{name} mask token'),
        Entry(f'{name}.pos_embed', '1 T D', f'{name} positions'),
        *pair(f'{name}.patch_embed.proj', 'D C P P'),
        Entry(f'{table}.table', 'R H', f'{name} tables', like=blocks, shared=True),
        Entry(f'{table}.grid', '2', f'{name} grids', like=blocks, shared=True),
        *block_layout(blocks, name),
        *pair(f'{name}.norm', 'D', f'{name} norm'),
        *pair(f'{name}.fc_norm', 'D', f'{name} fc_norm'),
    ]


def own_letters(entries: list[Entry]) -> list[Entry]:
    """Other numbers than the rest of the layout, except for the width of a code."""
    return [entry._replace(shape=' '.join(w + "'" * w[-1].isalpha() for w in entry.shape.split())) for entry in entries]


def conv_layout(key: str, weight: str, optional: str = '') -> list[Entry]:
    """mmcv's ConvModule: a convolution without a bias, and a batch norm."""
    return [Entry(f'{key}.conv.weight', weight, optional), *norm_layout(f'{key}.bn', weight.split()[0], optional)]


NORM = ('weight', 'bias', 'running_mean', 'running_var')


def norm_layout(key: str, size: str, optional: str = '') -> list[Entry]:
    return [
        *(Entry(f'{key}.{name}', size, optional) for name in NORM),
        Entry(f'{key}.num_batches_tracked', '', optional),
    ]


BACKBONE = backbone_layout('backbone')
MIM = [*BACKBONE, *pair('head.norm', 'D'), *pair('head.fc', 'V D')]
MIM_V2 = [
    *MIM,
    *block_layout('neck.blocks.{}', 'neck'),
    *pair('head.cls_norm', 'D', 'unshared head'),
    *pair('head.cls_fc', 'V D', 'unshared head'),
]
CLASSIFIER = [*BACKBONE, *pair('head.fc', 'K D')]
SEGMENTOR = [
    *BACKBONE,
    Entry('neck.upsample_4x.0.weight', 'D D 2 2'),
    Entry('neck.upsample_4x.0.bias', 'D'),
    *norm_layout('neck.upsample_4x.1', 'D'),
    Entry('neck.upsample_4x.3.weight', 'D D 2 2'),
    Entry('neck.upsample_4x.3.bias', 'D'),
    Entry('neck.upsample_2x.0.weight', 'D D 2 2'),
    Entry('neck.upsample_2x.0.bias', 'D'),
    *conv_layout('decode_head.psp_modules.{}.1', 'U D 1 1'),
    *conv_layout('decode_head.bottleneck', 'U * 3 3'),
    *conv_layout('decode_head.lateral_convs.{}', 'U D 1 1'),
    *conv_layout('decode_head.fpn_convs.{}', 'U U 3 3'),
    *conv_layout('decode_head.fpn_bottleneck', 'U 4U 3 3'),
    *pair('decode_head.conv_seg', 'K U 1 1'),
    *conv_layout('auxiliary_head.convs.0', 'A D 3 3', 'auxiliary head'),
    *pair('auxiliary_head.conv_seg', 'K A 1 1', 'auxiliary head'),
]


def vqkd_encoder_layout(at: str) -> list[Entry]:
    return [
        *backbone_layout(f'{at}encoder'),
        *pair(f'{at}encode_task_layer.0', 'D D'),
        *pair(f'{at}encode_task_layer.2', 'E D'),
        Entry(f'{at}quantizer.codebook', 'V E'),
        Entry(f'{at}quantizer.cluster_size', 'V'),
        Entry(f'{at}quantizer.initted', '1'),
    ]


VQKD_ENCODER = vqkd_encoder_layout('')
VQKD = [
    *vqkd_encoder_layout('tokenizer.'),
    *own_letters(backbone_layout('decoder')),
    *own_letters(pair('decode_task_layer.0', 'D D')),
    *own_letters(pair('decode_task_layer.2', 'O D')),
]


def dvae_layout(part: str, kernels: tuple[int, int, int]) -> list[Entry]:
    """OpenAI's names.

    Args:
        part: 'encoder' or 'decoder'.
        kernels: Sizes of the first convolution, and of the first and the last one of a block: they tell the two apart.
    """

    def conv(key: str, kernel: int, optional: str = '') -> list[Entry]:
        return [
            Entry(f'{part}.blocks.{key}.w', f'* * {kernel} {kernel}', optional, each=bool(optional)),
            Entry(f'{part}.blocks.{key}.b', '*', optional, each=bool(optional)),
        ]

    first, start, end = kernels
    block = 'group_{}.block_{}'
    return [
        *conv('input', first),
        *conv(f'{block}.id_path', 1, f'{part} id_path'),
        *conv(f'{block}.res_path.conv_1', start),
        *conv(f'{block}.res_path.conv_2', 3),
        *conv(f'{block}.res_path.conv_3', 3),
        *conv(f'{block}.res_path.conv_4', end),
        *conv('output.conv', 1),
    ]


DVAE_ENCODER = dvae_layout('encoder', (7, 3, 1))
DVAE_DECODER = dvae_layout('decoder', (1, 1, 3))

LAYOUTS: dict[str, Layout] = {
    kind: tuple(entries)
    for kind, entries in {
        'classifier': CLASSIFIER,
        'backbone': BACKBONE,
        'mim': MIM,
        'mim_v2': MIM_V2,
        'segmentor': SEGMENTOR,
        'vqkd': VQKD,
        'vqkd_encoder': VQKD_ENCODER,
        'dvae': [*DVAE_ENCODER, *DVAE_DECODER],
        'dvae_encoder': DVAE_ENCODER,
        'dvae_decoder': DVAE_DECODER,
    }.items()
}

# ---- the block and the backbone, once for each way of naming them ----


def index_of_table(table: Tensor) -> Tensor:
    """The index buffer that goes with a position table (rows, H) of a square grid."""
    return relative_index(grid_of_table(len(table))).clone()


def biases(theirs: str, ours: str) -> list[Row]:
    """q_bias and v_bias, or all three in one."""
    return [
        Rename(f'{theirs}.q_bias', f'{ours}.q_bias'),
        Rename(f'{theirs}.v_bias', f'{ours}.v_bias'),
        Split(f'{theirs}.qkv.bias', (f'{ours}.q_bias', '', f'{ours}.v_bias')),
    ]


def table_rows(shared: str, per_block: str, ours: str) -> list[Row]:
    """A position table, shared or per block. Whose grid it is, nobody else records."""
    name = 'relative_position_bias_table'
    return [
        Rename(f'{shared}.{name}', f'{ours}.0.table', unless=f'{ours}.1.table'),
        Rename(f'{per_block}.{name}', f'{ours}.{{}}.table'),
        Make(f'{ours}.{{}}.grid'),
    ]


def index_rows(*places: str, saved: bool = True) -> list[Row]:
    """The index of each pair of patches in a table: it follows from the grid. It is made for those who save it."""
    name, table, make = 'relative_position_index', 'relative_position_bias_table', index_of_table
    return [Drop(f'{at}.{name}', f'{at}.{table}' if saved else '', make if saved else None) for at in places]


def official_block(theirs: str, ours: str) -> list[Row]:
    return [
        *(
            row
            for name in ('norm1', 'norm2', 'attn.proj', 'mlp.fc1', 'mlp.fc2')
            for row in both(*_in(name, theirs, ours))
        ),
        Rename(f'{theirs}.attn.qkv.weight', f'{ours}.attn.qkv.weight'),
        *biases(f'{theirs}.attn', f'{ours}.attn'),
        Rename(f'{theirs}.gamma_1', f'{ours}.scale1.gamma'),
        Rename(f'{theirs}.gamma_2', f'{ours}.scale2.gamma'),
    ]


def _in(name: str, theirs: str, ours: str) -> tuple[str, str]:
    return f'{theirs}.{name}', f'{ours}.{name}'


def official_backbone(theirs: str, ours: str, index: bool = True) -> list[Row]:
    """unilm's names, which timm shares. Their `norm` is not in here: it belongs to the backbone or to a head.

    Args:
        theirs: Prefix with its dot, or nothing.
        ours: Prefix without a dot.
        index: Whether they save the index of each position.
    """
    return [
        *(Rename(f'{theirs}{name}', f'{ours}.{name}') for name in ('cls_token', 'mask_token', 'pos_embed')),
        *both(f'{theirs}patch_embed.proj', f'{ours}.patch_embed.proj'),
        *table_rows(f'{theirs}rel_pos_bias', f'{theirs}blocks.{{}}.attn', f'{ours}.rel_pos_bias'),
        *(index_rows(f'{theirs}rel_pos_bias', f'{theirs}blocks.{{}}.attn') if index else []),
        *official_block(f'{theirs}blocks.{{}}', f'{ours}.blocks.{{}}'),
    ]


def mm_block(theirs: str, ours: str) -> list[Row]:
    return [
        *both(f'{theirs}.ln1', f'{ours}.norm1'),
        *both(f'{theirs}.ln2', f'{ours}.norm2'),
        *both(f'{theirs}.attn.proj', f'{ours}.attn.proj'),
        *both(f'{theirs}.ffn.layers.0.0', f'{ours}.mlp.fc1'),
        *both(f'{theirs}.ffn.layers.1', f'{ours}.mlp.fc2'),
        Rename(f'{theirs}.attn.qkv.weight', f'{ours}.attn.qkv.weight'),
        *biases(f'{theirs}.attn', f'{ours}.attn'),
        Rename(f'{theirs}.gamma_1', f'{ours}.scale1.gamma'),
        Rename(f'{theirs}.gamma_2', f'{ours}.scale2.gamma'),
    ]


def mm_backbone(theirs: str, ours: str) -> list[Row]:
    """mmpretrain's and mmseg's names. Their `ln1` at this level is a final norm, `ln2` the one after the mean."""
    return [
        *(Rename(f'{theirs}{name}', f'{ours}.{name}') for name in ('cls_token', 'mask_token', 'pos_embed')),
        *both(f'{theirs}patch_embed.projection', f'{ours}.patch_embed.proj'),
        *table_rows(f'{theirs}rel_pos_bias', f'{theirs}layers.{{}}.attn', f'{ours}.rel_pos_bias'),
        *index_rows(f'{theirs}rel_pos_bias', f'{theirs}layers.{{}}.attn'),
        *mm_block(f'{theirs}layers.{{}}', f'{ours}.blocks.{{}}'),
    ]


def hf_backbone(theirs: str) -> list[Row]:
    """transformers' names, on disk and, after those, in the memory of 5.x (`conversion_mapping.py` there)."""
    disk, memory, ours = f'{theirs}encoder.layer.{{}}', f'{theirs}layers.{{}}', 'backbone.blocks.{}'
    bias, tables = 'relative_position_bias', 'backbone.rel_pos_bias'
    return [
        Rename(f'{theirs}embeddings.cls_token', 'backbone.cls_token'),
        Rename(f'{theirs}embeddings.mask_token', 'backbone.mask_token'),
        Rename(f'{theirs}embeddings.position_embeddings', 'backbone.pos_embed'),
        *both(f'{theirs}embeddings.patch_embeddings.projection', 'backbone.patch_embed.proj'),
        *table_rows(f'{theirs}encoder.{bias}', f'{disk}.attention.attention.{bias}', tables),
        *table_rows(f'{theirs}shared_position_bias', f'{memory}.{bias}', tables),
        *index_rows(f'{theirs}encoder.{bias}', f'{disk}.attention.attention.{bias}', saved=False),
        *hf_block(disk, ours, 'attention.attention.{}', ('query', 'key', 'value'), 'attention.output.dense'),
        *both(f'{disk}.intermediate.dense', f'{ours}.mlp.fc1'),
        *both(f'{disk}.output.dense', f'{ours}.mlp.fc2'),
        *hf_block(memory, ours, 'attention.{}', ('q_proj', 'k_proj', 'v_proj'), 'attention.o_proj'),
        *both(f'{memory}.mlp.fc1', f'{ours}.mlp.fc1'),
        *both(f'{memory}.mlp.fc2', f'{ours}.mlp.fc2'),
        *both(f'{theirs}layernorm', 'backbone.norm'),
        *both(f'{theirs}pooler.layernorm', 'backbone.fc_norm'),
    ]


def hf_block(theirs: str, ours: str, attention: str, qkv: tuple[str, str, str], proj: str) -> list[Row]:
    q, k, v = (f'{theirs}.{attention.format(name)}' for name in qkv)
    return [
        *both(f'{theirs}.layernorm_before', f'{ours}.norm1'),
        *both(f'{theirs}.layernorm_after', f'{ours}.norm2'),
        Fuse((f'{q}.weight', f'{k}.weight', f'{v}.weight'), f'{ours}.attn.qkv.weight'),
        Rename(f'{q}.bias', f'{ours}.attn.q_bias'),
        Rename(f'{v}.bias', f'{ours}.attn.v_bias'),
        *both(f'{theirs}.{proj}', f'{ours}.attn.proj'),
        Rename(f'{theirs}.lambda_1', f'{ours}.scale1.gamma'),
        Rename(f'{theirs}.lambda_2', f'{ours}.scale2.gamma'),
    ]


# ---- what the kinds add ----

OFFICIAL_NORMS = [*both('norm', 'backbone.norm'), *both('fc_norm', 'backbone.fc_norm')]
OFFICIAL_MIM = [*official_backbone('', 'backbone'), *both('norm', 'head.norm'), *both('lm_head', 'head.fc')]
MM_NORMS = [*both('backbone.ln1', 'backbone.norm'), *both('backbone.ln2', 'backbone.fc_norm')]
HF_MIM = [*hf_backbone('beit.'), *both('layernorm', 'head.norm'), *both('lm_head', 'head.fc')]


def vqkd_state(ours: str) -> list[Row]:
    """What follows on the encoder's transformer.

    Args:
        ours: Prefix with its dot, or nothing.
    """
    return [
        *both('encode_task_layer.0', f'{ours}encode_task_layer.0'),
        *both('encode_task_layer.2', f'{ours}encode_task_layer.2'),
        Rename('quantize.embedding.weight', f'{ours}quantizer.codebook'),
        Rename('quantize.cluster_size', f'{ours}quantizer.cluster_size'),
        Rename('quantize.embedding.initted', f'{ours}quantizer.initted'),
    ]


OFFICIAL_VQKD = [
    *official_backbone('encoder.', 'tokenizer.encoder'),
    *both('encoder.fc_norm', 'tokenizer.encoder.norm'),  # applied to the patches, whatever its name
    *vqkd_state('tokenizer.'),
    # Nothing reads these two after the codebook was started by k-means.
    Drop('quantize.embedding.cluster_size', 'quantize.cluster_size', torch.clone),
    Drop('quantize.embedding.embed_avg', 'quantize.embedding.weight', torch.clone),
    Drop('teacher_model.{*}'),
    Drop('scaling_layer.{*}'),
    *official_backbone('decoder.', 'decoder'),
    *both('decoder.fc_norm', 'decoder.norm'),
    *both('decode_task_layer.0', 'decode_task_layer.0'),
    *both('decode_task_layer.2', 'decode_task_layer.2'),
]


def norm_rows(theirs: str, ours: str) -> list[Row]:
    return [Rename(f'{theirs}.{name}', f'{ours}.{name}') for name in (*NORM, 'num_batches_tracked')]


def segmentation_heads(conv: str, norm: str, logits: str, psp: str, bottleneck: str) -> list[Row]:
    """UPerNet's decoder and the auxiliary head: mmseg's modules under various names."""
    convs = [
        (f'decode_head.{psp}', 'decode_head.psp_modules.{}.1'),
        (f'decode_head.{bottleneck}', 'decode_head.bottleneck'),
        ('decode_head.lateral_convs.{}', 'decode_head.lateral_convs.{}'),
        ('decode_head.fpn_convs.{}', 'decode_head.fpn_convs.{}'),
        ('decode_head.fpn_bottleneck', 'decode_head.fpn_bottleneck'),
        ('auxiliary_head.convs.0', 'auxiliary_head.convs.0'),
    ]
    return [
        *(Rename(f'{theirs}.{conv}.weight', f'{ours}.conv.weight') for theirs, ours in convs),
        *(row for theirs, ours in convs for row in norm_rows(f'{theirs}.{norm}', f'{ours}.bn')),
        *both(f'decode_head.{logits}', 'decode_head.conv_seg'),
        *both(f'auxiliary_head.{logits}', 'auxiliary_head.conv_seg'),
    ]


def pyramid(up1: str, norm: str, up2: str, up: str) -> list[Row]:
    """The learned part of the feature pyramid: four times up in two steps, and two times up."""
    return [
        *both(up1, 'neck.upsample_4x.0'),
        *norm_rows(norm, 'neck.upsample_4x.1'),
        *both(up2, 'neck.upsample_4x.3'),
        *both(up, 'neck.upsample_2x.0'),
    ]


MMSEG_HEADS = segmentation_heads('conv', 'bn', 'conv_seg', 'psp_modules.{}.1', 'bottleneck')


def dvae_rows(ours: str, weight: str = 'w', bias: str = 'b', group: str = '', path: str = '') -> list[Row]:
    block = f'blocks.group_{{}}.{group}block_{{}}'
    convs = [('blocks.input', 'blocks.input'), ('blocks.output.conv', 'blocks.output.conv')]
    convs.append((f'{block}.id_path', 'blocks.group_{}.block_{}.id_path'))
    convs += [
        (f'{block}.res_path.{path}conv_{i}', f'blocks.group_{{}}.block_{{}}.res_path.conv_{i}') for i in range(1, 5)
    ]
    return [
        Rename(f'{theirs}.{name}', f'{ours}.{name_here}.{letter}')
        for theirs, name_here in convs
        for name, letter in ((weight, 'w'), (bias, 'b'))
    ]


def _table(format: str, kind: str, *rows: Row) -> Table:
    return Table(format, kind, rows, LAYOUTS[kind])


# In the order in which formats are tried on a file; timm's files are official ones without index buffers.
TABLES: tuple[Table, ...] = (
    *(_table('mmbeit', kind, *(Rename(entry.key, entry.key) for entry in layout)) for kind, layout in LAYOUTS.items()),
    _table(
        'timm',
        'classifier',
        *official_backbone('', 'backbone', index=False),
        *OFFICIAL_NORMS,
        *both('head', 'head.fc'),
    ),
    _table('timm', 'backbone', *official_backbone('', 'backbone', index=False), *OFFICIAL_NORMS),
    _table('official', 'classifier', *official_backbone('', 'backbone'), *OFFICIAL_NORMS, *both('head', 'head.fc')),
    _table('official', 'backbone', *official_backbone('', 'backbone'), *OFFICIAL_NORMS),
    _table('official', 'mim', *OFFICIAL_MIM),
    _table(
        'official',
        'mim_v2',
        *OFFICIAL_MIM,
        *official_block('cls_pt_layers.{}', 'neck.blocks.{}'),
        *both('cls_pt_norm', 'head.cls_norm'),
        *both('cls_pt_lm_head', 'head.cls_fc'),
    ),
    _table(
        'official',
        'segmentor',
        *official_backbone('backbone.', 'backbone'),
        *pyramid('backbone.fpn1.0', 'backbone.fpn1.1', 'backbone.fpn1.3', 'backbone.fpn2.0'),
        *MMSEG_HEADS,
    ),
    _table('official', 'vqkd', *OFFICIAL_VQKD),
    _table('official', 'dvae_encoder', *dvae_rows('encoder')),
    _table('official', 'dvae_decoder', *dvae_rows('decoder')),
    _table('mmpretrain', 'classifier', *mm_backbone('backbone.', 'backbone'), *MM_NORMS, *both('head.fc', 'head.fc')),
    _table(
        'mmpretrain',
        'backbone',
        *mm_backbone('', 'backbone'),
        *both('ln1', 'backbone.norm'),
        *both('ln2', 'backbone.fc_norm'),
    ),
    _table(
        'mmpretrain',
        'mim',
        *mm_backbone('backbone.', 'backbone'),
        *both('backbone.ln1', 'head.norm'),
        *both('head.cls_head', 'head.fc'),
        Drop('target_generator.{*}'),
    ),
    _table(
        'mmpretrain',
        'mim_v2',
        *mm_backbone('backbone.', 'backbone'),
        *mm_block('neck.patch_aggregation.{}', 'neck.blocks.{}'),
        *both('neck.norm', 'head.norm'),
        *both('head.cls_head', 'head.fc'),
        Drop('target_generator.{*}'),
    ),
    _table(
        'mmpretrain',
        'vqkd_encoder',
        *mm_backbone('encoder.', 'encoder'),
        *both('encoder.ln1', 'encoder.norm'),
        *vqkd_state(''),
    ),
    _table('mmpretrain', 'dvae_encoder', *dvae_rows('encoder')),
    _table(
        'mmseg',
        'segmentor',
        *mm_backbone('backbone.', 'backbone'),
        *both('backbone.norm1', 'backbone.norm'),
        *pyramid('neck.upsample_4x.0', 'neck.upsample_4x.1', 'neck.upsample_4x.3', 'neck.upsample_2x.0'),
        *MMSEG_HEADS,
    ),
    _table('hf', 'classifier', *hf_backbone('beit.'), *both('classifier', 'head.fc')),
    _table('hf', 'mim', *HF_MIM),
    _table('hf', 'backbone', *hf_backbone('')),
    _table('hf', 'backbone', *hf_backbone('beit.')),
    _table(
        'hf',
        'segmentor',
        *hf_backbone('beit.'),
        *pyramid('fpn1.0', 'fpn1.1', 'fpn1.3', 'fpn2.0'),
        *segmentation_heads('conv', 'bn', 'classifier', 'psp_modules.{}.1', 'bottleneck'),
        *pyramid('fpn.fpn1.conv_transpose1', 'fpn.fpn1.normalization', 'fpn.fpn1.conv_transpose2', 'fpn.fpn2'),
        *segmentation_heads(
            'convolution', 'normalization', 'classifier', 'psp_modules.blocks.{}.conv', 'psp_bottleneck'
        ),
    ),
    _table('hf', 'dvae_encoder', *dvae_rows('encoder', 'weight', 'bias', 'group.', 'path.')),
)
