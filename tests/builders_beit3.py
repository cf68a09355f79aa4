"""Tiny models of BEiT-3 with every parameter randomised."""

import copy

import torch
from builders import NUM_CLASSES, randomize
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmbeit.archs import resolve_arch
from mmbeit.models import BEiT3

TINY = dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=48)
SIZES = dict(arch=TINY, img_size=32, patch_size=8, vocab_size=20, num_text_positions=12)
NUM_PATCHES = 16
BOS, PAD, EOS, MASK = 0, 1, 2, 18


def backbone_cfg(**kwargs) -> dict:
    """Config of an encoder of 3 blocks and width 24, on images of 32 pixels, patches of 8, and texts of 10 tokens."""
    return dict(type='mmbeit.BEiT3', **{**SIZES, 'arch': dict(TINY), **kwargs})


def tiny_beit3(**kwargs) -> BEiT3:
    return randomize(MODELS.build(backbone_cfg(**kwargs)))


def build(cfg: dict) -> nn.Module:
    return randomize(MODELS.build(cfg))


def images(*size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *(size or (32, 32)))


def texts(*lengths: int) -> tuple[Tensor, Tensor]:
    """Random ids (B, longest) of texts of these lengths between `<s>` and `</s>`, padded; and where the padding is."""
    ids = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(4, MASK, (length,))
        row[0], row[length - 1] = BOS, EOS
    return ids, torch.arange(max(lengths))[None] >= torch.tensor(lengths)[:, None]


# What the official models consist of, but for the encoder's size.
TASKS = {
    'classifier': dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(final_norm=False, out_type='avg_featmap'),
        head=dict(type='LinearClsHead', num_classes=1000),
    ),
    'vqa': dict(
        type='mmbeit.FusionEncoder',
        backbone=dict(final_norm=False),
        neck=dict(type='mmbeit.Pooler'),
        head=dict(type='mmbeit.VQAHead', num_classes=3129),
    ),
    'nlvr2': dict(type='mmbeit.FusionEncoder', head=dict(type='mmbeit.NLVRHead')),
    'captioner': dict(type='mmbeit.Captioner', mlm_head=dict(type='mmbeit.MaskedTokenHead', label_smoothing=0.1)),
    'pretraining': dict(
        type='mmbeit.MaskedDataModeling',
        backbone=dict(mask_token=True),
        mim_head=dict(type='mmbeit.MaskedTokenHead', num_tokens=8192),
        mlm_head=dict(type='mmbeit.MaskedTokenHead'),
    ),
    'retrieval': dict(type='mmbeit.DualEncoder', head=dict(type='mmbeit.ContrastiveHead')),
}


def task_cfg(task: str, **backbone) -> dict:
    """Config of an official model, with the encoder of these arguments."""
    cfg = copy.deepcopy(TASKS[task])
    cfg['backbone'] = dict(type='mmbeit.BEiT3', **{**cfg.get('backbone', {}), **backbone})
    if task == 'classifier':
        cfg['head']['in_channels'] = resolve_arch(backbone['arch']).embed_dims
    return cfg


def tiny_task(task: str, **kwargs) -> nn.Module:
    """A tiny randomised model for a task; `kwargs` of the encoder. Fewer classes than official ones have."""
    cfg = task_cfg(task, **{**SIZES, 'arch': dict(TINY), **kwargs})
    if 'num_classes' in cfg.get('head', {}):
        cfg['head']['num_classes'] = NUM_CLASSES
    if task == 'captioner':
        cfg.update(mask_id=MASK, max_length=8)
    return build(cfg)


def masked_samples(*lengths: int, **fields) -> list[DataSample]:
    """The same, with some tokens to be predicted: always the last one, never the first."""
    data = samples(*lengths, **fields)
    for sample in data:
        mask = [False, *(torch.rand(len(sample.text_ids) - 1) < 0.6).tolist()]
        mask[-1] = True
        sample.set_field(mask, 'text_mask')
        shown = [MASK if hidden else i for i, hidden in zip(sample.text_ids, mask, strict=True)]
        sample.set_field(shown, 'masked_text_ids')
    return data


def samples(*lengths: int, **fields) -> list[DataSample]:
    """Data samples with random texts of these lengths; `fields` hold a value for each of them."""
    out = []
    for i, (ids, padding) in enumerate(zip(*texts(*lengths), strict=True)):
        out.append(DataSample(text_ids=ids[~padding].tolist()))
        for name, values in fields.items():
            out[-1].set_field(values[i], name)
    return out
