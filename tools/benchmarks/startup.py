"""Cases of starting: what passes before anything is computed."""

import atexit
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from measure import Case, Contender, Setting, UnableError
from models import classifier, hf_config
from PIL import Image

import mmbeit
from mmbeit.checkpoint.formats import from_ours
from mmbeit.resources import resource_root

ROOT = resource_root()
RECIPE = ROOT / 'configs' / 'beit' / 'quickstart' / 'beit-mini-p4_1xb50-coslr-200e_digits.py'
NUM_IMAGES = 50  # one batch
LARGE = 'beit-large-p16_beit-in21k-pre_8xb32-accu2-coslr-30e_in1k'


@cache
def folder() -> Path:
    """A folder for what these cases write."""
    made = tempfile.TemporaryDirectory()
    atexit.register(made.cleanup)
    return Path(made.name)


def process(command: list[str]) -> None:
    subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=ROOT)


def importing(module: str, setting: Setting) -> Contender:
    """In a process of its own.

    Raises:
        UnableError: It cannot be imported, as what needs torchvision where that does not fit torch.
    """
    command = ['-c', f'import {module}']
    try:
        process(command)
    except subprocess.CalledProcessError as error:
        raise UnableError(error.stderr.decode().strip().splitlines()[-1]) from error
    return Contender(lambda: process(command), 1)


def first_step(setting: Setting) -> Contender:
    """tools/train.py for one step of a tiny model, the checkpoint after it included."""
    draw, root = np.random.default_rng(0), folder() / 'train'
    for number in range(NUM_IMAGES):
        path = root / str(number % 10) / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    options = [
        'train_cfg.max_epochs=1',
        *(f'{part}=None' for part in ('val_cfg', 'val_dataloader', 'val_evaluator')),
        'model.backbone.init_cfg=None',
        f'train_dataloader.dataset.data_root={folder()}',
        'train_dataloader.dataset.ann_file=',
        'optim_wrapper.type=OptimWrapper',
    ]
    command = ['tools/train.py', str(RECIPE), '--work-dir', str(folder() / 'work'), '--cfg-options', *options]
    return Contender(lambda: process(command), 1)


# ---- a large model, from a file ----


@cache
def large_file(format_: str) -> Path:
    """A file of a large classifier in one of the layouts."""
    state, _ = from_ours(classifier('large', 224).state_dict(), format_)
    path = folder() / f'{format_}.pth'
    torch.save(state, path)
    return path


def build_mmbeit() -> object:
    return mmbeit.get_model(LARGE, pretrained=str(large_file('official')))


def build_timm() -> object:
    import timm

    return timm.create_model('beit_large_patch16_224', checkpoint_path=str(large_file('timm')))


def build_transformers() -> object:
    import transformers

    state = torch.load(large_file('hf'), mmap=True, weights_only=True)
    config = hf_config('large', 224, num_labels=1000, use_relative_position_bias=True, use_mean_pooling=True)
    return transformers.BeitForImageClassification.from_pretrained(None, config=config, state_dict=state)


def building(build: Callable[[], object], setting: Setting) -> Contender:
    return Contender(build, 1)


PLAIN = dict(unit='starts', flops=False, memory=False, dtypes=('float32',), devices=('cpu',), quick=False)
CASES = [
    Case(
        'startup-import',
        'Importing',
        {
            f'import {module}': partial(importing, module)
            for module in ('mmbeit', 'torch', 'timm', 'transformers.models.beit.modeling_beit', 'mmpretrain.models')
        },
        **PLAIN,
    ),
    Case('startup-train', 'tools/train.py, until one step of a tiny model is saved', {'mmbeit': first_step}, **PLAIN),
    Case(
        'startup-large',
        'BEiT large from a file of its weights, imports not counted',
        {
            name: partial(building, build)
            for name, build in (('mmbeit', build_mmbeit), ('timm', build_timm), ('transformers', build_transformers))
        },
        **PLAIN,
    ),
]
