"""A published recipe of segmentation, shrunk to random images of about 50 pixels."""

from pathlib import Path

import numpy as np
from PIL import Image

RECIPE = """
_base_ = '{root}/configs/beit/benchmarks/beit-base-p16_beit-in21k-pre_upernet_8xb2-160k_ade20k-512x512.py'
arch = dict(_delete_=True, embed_dims=24, num_layers=4, num_heads=3, feedforward_channels=48)
model = dict(
    data_preprocessor=dict(size=(32, 32)),
    backbone=dict(arch=arch, img_size=32, patch_size=8, out_indices=(0, 1, 2, 3), init_cfg=None),
    neck=dict(in_channels=24),
    decode_head=dict(in_channels=[24] * 4, channels=24),
    auxiliary_head=dict(in_channels=24, channels=8),
    test_cfg=dict(crop_size=(32, 32), stride=(21, 21)),
)
_base_.train_pipeline[3].scale = _base_.test_pipeline[1].scale = (128, 32)
_base_.train_pipeline[4].crop_size = 32
for _step, _side in zip(_base_.tta_pipeline[1].transforms[0], (32, 32, 32, 40, 48, 56)):
    _step.scale = _side
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=4, dataset=dict(data_root='{data}', pipeline=_base_.train_pipeline), **loader)
val_dataloader = dict(dataset=dict(data_root='{data}', pipeline=_base_.test_pipeline), **loader)
test_dataloader = val_dataloader
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=1e-3))  # float32
_base_.param_scheduler[0].end = 2
_base_.param_scheduler[1].end = 7
train_cfg = dict(max_iters=6, val_interval=3)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=3))
"""


def write_scene(folder: Path, name: str, image: np.ndarray | bytes, labels: np.ndarray | bytes, split='training'):
    """One image and its labels in ADE20K's layout, from pixels or, as they are, from the bytes of a file."""
    for kind, pixels, suffix in (('images', image, 'jpg'), ('annotations', labels, 'png')):
        path = folder / kind / split / f'{name}.{suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pixels) if isinstance(pixels, bytes) else Image.fromarray(pixels).save(path)


def write_scenes(folder: Path) -> Path:
    """Eight images to train on, three to evaluate, of all sizes, one pixel included."""
    draw = np.random.default_rng(0)
    for split, count in (('training', 8), ('validation', 3)):
        for i in range(count):
            shape = (1, 1) if i == 1 else (40 + 3 * i, 60 - 2 * i)
            labels = draw.integers(1 if i == 1 else 0, 5, shape, dtype=np.uint8)
            write_scene(folder, f'{i}', draw.integers(0, 256, (*shape, 3), dtype=np.uint8), labels, split)
    return folder
