"""What every kind of model of BEiT-3 consists of, and what every format calls it.

Sources: microsoft/unilm beit3/ and torchscale 0.2.0; timm models/vision_transformer.py, which has the vision alone.

In letters of shapes: D width, F hidden width, V vocabulary, R and T rows of the positions of patches and of text, P
patch, K classes, C visual tokens.
"""

import re

import torch
from torch import Tensor

from mmbeit.checkpoint.keymap import Make, Reform, Rename, Row, Split, Table, both
from mmbeit.checkpoint.layout import Entry, Layout
from mmbeit.checkpoint.tables import pair

# What neither other vision transformers have, nor BEiT v1 and v2: official files, timm's, and ours.
MARKS = re.compile(r'beit3\..+|(.+\.)?blocks\.\d+\.attn\.norm\.((vision|text)\.)?weight')
MODALITIES = {'A': 'vision', 'B': 'text'}
NUM_UNUSED = 2  # first rows of the positions, which nobody reads

# ---- layouts ----


def backbone_layout(name: str) -> list[Entry]:
    """The text may be missing as a whole."""
    block = f'{name}.blocks.{{}}'
    entries = [
        Entry(f'{name}.cls_token', '1 1 D'),
        Entry(f'{name}.mask_token', '1 1 D', f'{name} mask token'),
        *pair(f'{name}.patch_embed.proj', 'D * P P'),
        Entry(f'{name}.pos_embed', 'R D'),
        Entry(f'{name}.pos_grid', '2', f'{name} grid'),
        Entry(f'{name}.text_embed.weight', 'V D', f'{name} text'),
        Entry(f'{name}.text_pos_embed', 'T D', f'{name} text'),
    ]
    for modality in MODALITIES.values():
        group = f'{name} text' if modality == 'text' else ''
        entries += [
            *pair(f'{block}.norm1.{modality}', 'D', group),
            *(entry for part in 'qkv' for entry in pair(f'{block}.attn.{part}.{modality}', 'D D', group)),
            *pair(f'{block}.attn.norm.{modality}', 'D', group),
            *pair(f'{block}.attn.proj.{modality}', 'D D', group),
            *pair(f'{block}.norm2.{modality}', 'D', group),
            *pair(f'{block}.mlp.{modality}.fc1', 'F D', group),
            *pair(f'{block}.mlp.{modality}.norm', 'F', group),
            *pair(f'{block}.mlp.{modality}.fc2', 'D F', group),
            *pair(f'{name}.norm.{modality}', 'D', f'{name} norm of {modality}'),
        ]
    return [*entries, *pair(f'{name}.fc_norm', 'D', f'{name} fc_norm')]


BACKBONE = backbone_layout('backbone')
CAPTIONER = [*BACKBONE, *pair('mlm_head.fc', 'V D')]

LAYOUTS: dict[str, Layout] = {
    kind: tuple(entries)
    for kind, entries in {
        'beit3_classifier': [*BACKBONE, *pair('head.fc', 'K D')],
        'beit3_backbone': BACKBONE,
        'beit3_vqa': [
            *BACKBONE,
            *pair('neck.norm', 'D'),
            *pair('neck.dense', 'D D'),
            *pair('head.fc1', '2D D'),
            *pair('head.norm', '2D'),
            *pair('head.fc2', 'K 2D'),
        ],
        'beit3_nlvr2': [
            *BACKBONE,
            *pair('head.norm1', '4D'),
            *pair('head.fc1', '2D 4D'),
            *pair('head.norm2', '2D'),
            *pair('head.fc2', 'K 2D'),
        ],
        'beit3_captioner': CAPTIONER,
        'beit3_retrieval': [
            *BACKBONE,
            Entry('head.proj.vision.weight', 'D D'),
            Entry('head.proj.text.weight', 'D D'),
            Entry('head.logit_scale', ''),
        ],
        'beit3_pretraining': [*CAPTIONER, *pair('mim_head.fc', 'C D')],
    }.items()
}

# ---- the backbone, once for each way of naming it ----


def official_backbone(theirs: str, ours: str) -> list[Row]:
    """torchscale's names: A is vision, B is text."""
    layer, block = f'{theirs}encoder.layers.{{}}', f'{ours}.blocks.{{}}'
    rows: list[Row] = [
        Rename(f'{theirs}text_embed.weight', f'{ours}.text_embed.weight'),
        Rename(f'{theirs}vision_embed.mask_token', f'{ours}.mask_token'),
        Rename(f'{theirs}vision_embed.cls_token', f'{ours}.cls_token'),
        *both(f'{theirs}vision_embed.proj', f'{ours}.patch_embed.proj'),
        Rename(f'{theirs}encoder.embed_positions.A.weight', f'{ours}.pos_embed'),
        Rename(f'{theirs}encoder.embed_positions.B.weight', f'{ours}.text_pos_embed'),
        Make(f'{ours}.pos_grid'),
    ]
    for letter, modality in MODALITIES.items():
        rows += [
            *(
                row
                for part in 'qkv'
                for row in both(f'{layer}.self_attn.{part}_proj.{letter}', f'{block}.attn.{part}.{modality}')
            ),
            *both(f'{layer}.self_attn.out_proj.{letter}', f'{block}.attn.proj.{modality}'),
            *both(f'{layer}.self_attn.inner_attn_ln.{letter}', f'{block}.attn.norm.{modality}'),
            *both(f'{layer}.self_attn_layer_norm.{letter}', f'{block}.norm1.{modality}'),
            *both(f'{layer}.final_layer_norm.{letter}', f'{block}.norm2.{modality}'),
            *both(f'{layer}.ffn.{letter}.fc1', f'{block}.mlp.{modality}.fc1'),
            *both(f'{layer}.ffn.{letter}.fc2', f'{block}.mlp.{modality}.fc2'),
            *both(f'{layer}.ffn.{letter}.ffn_layernorm', f'{block}.mlp.{modality}.norm'),
            *both(f'{theirs}encoder.layer_norm.{letter}', f'{ours}.norm.{modality}'),
        ]
    return rows


def with_unused_rows(embed: Tensor) -> Tensor:
    """Positions (1, 1 + N, D) as a table (3 + N, D). What is of another shape stays as it is, to be refused later."""
    if embed.ndim != 3 or len(embed) != 1:
        return embed
    return torch.cat([embed.new_zeros(NUM_UNUSED, embed.shape[2]), embed[0]])


def without_unused_rows(table: Tensor) -> Tensor:
    """The inverse of :func:`with_unused_rows`."""
    return table[None, NUM_UNUSED:].clone()


def timm_backbone(ours: str) -> list[Row]:
    """timm's vision transformer with `scale_attn_norm` and `scale_mlp_norm`. It has no text."""
    block = f'{ours}.blocks.{{}}'
    qkv = [tuple(f'{block}.attn.{part}.vision.{name}' for part in 'qkv') for name in ('weight', 'bias')]
    return [
        Rename('cls_token', f'{ours}.cls_token'),
        *both('patch_embed.proj', f'{ours}.patch_embed.proj'),
        Reform('pos_embed', f'{ours}.pos_embed', with_unused_rows, without_unused_rows),
        *both('blocks.{}.norm1', f'{block}.norm1.vision'),
        Split('blocks.{}.attn.qkv.weight', qkv[0]),
        Split('blocks.{}.attn.qkv.bias', qkv[1]),
        *both('blocks.{}.attn.norm', f'{block}.attn.norm.vision'),
        *both('blocks.{}.attn.proj', f'{block}.attn.proj.vision'),
        *both('blocks.{}.norm2', f'{block}.norm2.vision'),
        *both('blocks.{}.mlp.fc1', f'{block}.mlp.vision.fc1'),
        *both('blocks.{}.mlp.norm', f'{block}.mlp.vision.norm'),
        *both('blocks.{}.mlp.fc2', f'{block}.mlp.vision.fc2'),
        *both('norm', f'{ours}.norm.vision'),
        *both('fc_norm', f'{ours}.fc_norm'),
        Make(f'{ours}.pos_grid'),
        Make(f'{ours}.mask_token'),
        Make(f'{ours}.text_{{*}}'),
        Make(f'{ours}.{{*}}.text.{{*}}'),
    ]


# ---- what the kinds add ----

OFFICIAL = official_backbone('beit3.', 'backbone')
OFFICIAL_MLM = both('mlm_head', 'mlm_head.fc')


def _table(format: str, kind: str, *rows: Row) -> Table:
    return Table(format, kind, rows, LAYOUTS[kind])


TABLES: tuple[Table, ...] = (
    *(_table('mmbeit', kind, *(Rename(entry.key, entry.key) for entry in layout)) for kind, layout in LAYOUTS.items()),
    _table('timm', 'beit3_classifier', *timm_backbone('backbone'), *both('head', 'head.fc')),
    _table('timm', 'beit3_backbone', *timm_backbone('backbone')),
    _table('official', 'beit3_classifier', *OFFICIAL, *both('fc_norm', 'backbone.fc_norm'), *both('head', 'head.fc')),
    _table('official', 'beit3_backbone', *OFFICIAL, *both('fc_norm', 'backbone.fc_norm')),
    _table(
        'official',
        'beit3_vqa',
        *OFFICIAL,
        *both('pooler.norm', 'neck.norm'),
        *both('pooler.dense', 'neck.dense'),
        *both('head.0', 'head.fc1'),
        *both('head.1', 'head.norm'),
        *both('head.3', 'head.fc2'),
    ),
    _table(
        'official',
        'beit3_nlvr2',
        *OFFICIAL,
        *both('head.norm1', 'head.norm1'),
        *both('head.dense1', 'head.fc1'),
        *both('head.norm2', 'head.norm2'),
        *both('head.dense2', 'head.fc2'),
    ),
    _table('official', 'beit3_captioner', *OFFICIAL, *OFFICIAL_MLM),
    _table(
        'official',
        'beit3_retrieval',
        *OFFICIAL,
        Rename('vision_head.weight', 'head.proj.vision.weight'),
        Rename('language_head.weight', 'head.proj.text.weight'),
        Rename('logit_scale', 'head.logit_scale'),
    ),
    _table('official', 'beit3_pretraining', *OFFICIAL, *OFFICIAL_MLM, *both('mim_head', 'mim_head.fc')),
)
