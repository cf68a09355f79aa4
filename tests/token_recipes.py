"""Tiny recipes of masked image modeling on a folder of images, to extract tokens for."""

from pathlib import Path

import numpy as np
import torch
from builders import TINY, randomize, tiny_backbone_cfg
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

NUM_CODES = 64
DVAE = dict(type='mmbeit.DVAETokenizer', num_codes=NUM_CODES, width=8, num_groups=3, num_blocks=1)
VQKD = dict(type='mmbeit.VQKDTokenizer', arch=dict(TINY), img_size=16, patch_size=4, num_codes=NUM_CODES, code_dim=4)


def write_images(folder: Path, count: int, bad: tuple[int, ...] = ()) -> Path:
    """Smooth random images of two shapes in two folders; those of the numbers `bad` cannot be read."""
    for i in range(count):
        draw = np.random.default_rng(i)
        size = (48, 40) if i % 2 else (40, 60)
        image = Image.fromarray(draw.integers(256, size=(5, 5, 3), dtype=np.uint8)).resize(size, Image.BICUBIC)
        path = folder / 'train' / f'c{i % 2}' / f'{i:03}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        if i in bad:
            path.write_bytes(path.read_bytes()[:60])
    return folder


def write_tokenizer(path: Path, cfg: dict, seed: int = 0) -> dict:
    """Save a random tokenizer and give its config."""
    torch.manual_seed(seed)
    tokenizer = randomize(MODELS.build(cfg))
    state = {key.removeprefix('network.'): value for key, value in tokenizer.state_dict().items()}  # as VQ-KD saves it
    torch.save(dict(state_dict=state), path)
    return {**cfg, 'init_cfg': dict(type='Pretrained', checkpoint=str(path))}


def recipe(images: Path, tokenizer: dict, **crop) -> Config:
    """Views of 32 pixels and target views of 16, 4 x 4 tokens each."""
    crop = {'size': 32, 'target_size': 16, **crop}
    pipeline = [
        dict(type='mmbeit.SeedTransforms'),
        dict(type='mmbeit.LoadImage', on_error='skip'),
        dict(type='torchvision/ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
        dict(type='torchvision/RandomHorizontalFlip'),
        dict(type='mmbeit.RandomResizedCropTwoViews', **crop),
        dict(type='mmbeit.BlockwiseMask', grid=4, num_masked=6, min_block=1),
        dict(type='PackInputs'),
    ]
    model = dict(
        type='mmbeit.MaskedImageModeling',
        backbone=tiny_backbone_cfg(rel_pos_bias='shared', mask_token=True, out_type='raw'),
        head=dict(type='mmbeit.MIMHead'),
        target_generator=tokenizer,
        data_preprocessor=dict(type='mmbeit.MIMDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3),
    )
    dataset = dict(
        type='CustomDataset', data_root=str(images), data_prefix='train', with_label=False, pipeline=pipeline
    )
    loader = dict(
        batch_size=8,
        num_workers=0,
        sampler=dict(type='mmbeit.SeededSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        dataset=dataset,
    )
    return Config(
        dict(model=model, train_dataloader=loader, default_scope='mmpretrain', randomness=dict(seed=5), work_dir='.')
    )


def fast_recipe(images: Path, tokenizer: dict) -> Config:
    """The same with views that are made at less cost, coloured by the data preprocessor."""
    cfg = recipe(images, tokenizer)
    seed, *_, mask, pack = cfg.train_dataloader.dataset.pipeline
    views = [
        dict(type='mmbeit.LoadTwoViews', size=32, target_size=16, on_error='skip'),
        dict(type='mmbeit.JitterViews', on_device=True),
    ]
    cfg.train_dataloader.dataset.pipeline = [seed, *views, mask, pack]
    return cfg
