"""Published recipes shrunk to random images of 40 pixels, and ways to run the tools on them."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import builders_mdm
import numpy as np
import pytest
import torch
from PIL import Image

from mmbeit.models import DVAETokenizer, VQKDTokenizer

ROOT = Path(__file__).parents[2]
ARCH = 'dict(_delete_=True, embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)'
TOKENIZER_ARCH = dict(embed_dims=24, num_layers=1, num_heads=3, feedforward_channels=48)
PRETRAIN = """
_base_ = '{root}/configs/beit/beit_beit-base-p16_8xb256-amp-coslr-300e_in1k.py'
model = dict(
    backbone=dict(arch={arch}, img_size=32, patch_size=8, drop_path_rate=0.5),
    target_generator=dict(num_codes=16, width=8, num_groups=3, num_blocks=1, init_cfg=dict(checkpoint='{tokenizer}')),
)
_base_.train_pipeline[4].update(size=32, target_size=16)
_base_.train_pipeline[5].update(grid=4, num_masked=6, min_block=1)
train_dataloader = dict(dataset=dict(data_root='{data}', pipeline=_base_.train_pipeline))
"""
PRETRAIN_V2 = """
_base_ = '{root}/configs/beitv2/beitv2_beit-base-p16_8xb256-amp-coslr-300e_in1k.py'
model = dict(
    backbone=dict(arch={arch}, img_size=32, patch_size=8, drop_path_rate=0.5),
    neck=dict(early_layers=1),
    target_generator=dict(
        arch={tokenizer_arch}, img_size=32, patch_size=8, num_codes=16, code_dim=8,
        init_cfg=dict(checkpoint='{tokenizer}'),
    ),
)
_base_.train_pipeline[4].update(size=32, target_size=32)
_base_.train_pipeline[5].update(grid=4, num_masked=6, min_block=1)
train_dataloader = dict(dataset=dict(data_root='{data}', pipeline=_base_.train_pipeline))
"""
FINETUNE = """
_base_ = '{root}/configs/beit/benchmarks/beit-base-p16_beit-pre_8xb128-coslr-100e_in1k.py'
data_preprocessor = dict(num_classes=6)
model = dict(
    backbone=dict(
        arch={arch}, img_size=32, patch_size=8, drop_path_rate=0.5, init_cfg=dict(checkpoint='{pretrained}')
    ),
    head=dict(num_classes=6, in_channels=24),
)
_base_.train_pipeline[2].scale = 32
_base_.test_pipeline[1].scale = 36
_base_.test_pipeline[2].crop_size = 32
dataset = dict(_delete_=True, type='CustomDataset', data_root='{data}')
train_dataloader = dict(dataset=dict(data_prefix='train', pipeline=_base_.train_pipeline, **dataset))
val_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(data_prefix='val', pipeline=_base_.test_pipeline, **dataset),
)
test_dataloader = val_dataloader
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=0.1)]
"""
VQKD = """
_base_ = '{root}/configs/beitv2/vqkd_base-1x768x12-dino_8xb64-amp-coslr-100e_in1k.py'
model = dict(
    tokenizer=dict(arch={arch}, img_size=32, patch_size=8, num_codes=16, code_dim=4, revive_below=0.1),
    teacher=dict(
        stride=8, embed_dim=24, depth=1, num_heads=3, img_size=32, patch_size=8, init_cfg=dict(checkpoint='{teacher}')
    ),
)
_base_.train_pipeline[2].size = 32
_base_.test_pipeline[1].size = 36
_base_.test_pipeline[2].size = 32
train_dataloader = dict(dataset=dict(data_root='{data}', pipeline=_base_.train_pipeline))
val_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{data}', pipeline=_base_.test_pipeline),
)
test_dataloader = val_dataloader
custom_hooks = [*_base_.custom_hooks, dict(type='mmbeit.CodebookHook', interval=2)]
"""
MDM = """
_base_ = '{root}/configs/beit3/beit3_beit3-base-p16_16xb384-amp-coslr-1000k_image-text.py'
model = dict(
    backbone=dict(arch={arch}, img_size=32, patch_size=8, drop_path_rate=0.5, vocab_size=64, num_text_positions=40),
    target_generator=dict(
        arch={tokenizer_arch}, img_size=32, patch_size=8, num_codes=16, code_dim=8,
        init_cfg=dict(checkpoint='{tokenizer}'),
    ),
)
_base_.image_pipeline[3].update(size=32, target_size=32)
_base_.image_pipeline[4].update(grid=4, num_masked=6, min_block=1)
for pipeline in (_base_.text_pipeline, _base_.pair_pipeline):
    pipeline[-3].update(tokenizer='{text_tokenizer}', max_length=20)
    pipeline[-2].update(tokenizer='{text_tokenizer}')
_base_.pair_pipeline[3].update(size=32, target_size=32)
_base_.pair_pipeline[4].update(grid=4, num_masked=6, min_block=1)
groups = dict(
    image=dict(data_root='{sources}', pipeline=_base_.image_pipeline),
    text=dict(data_root='{sources}', pipeline=_base_.text_pipeline),
    pair={pair},
)
train_dataloader = dict(
    batch_size=6, num_workers=0, persistent_workers=False, pin_memory=False, dataset=dict(groups=groups)
)
optim_wrapper = dict(type='OptimWrapper')  # float32
_base_.param_scheduler[0].end = _base_.param_scheduler[1].begin = 2
_base_.param_scheduler[1].end = 8
train_cfg = dict(max_iters=8)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
"""
SHORT = """
train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False)
optim_wrapper = dict(type='OptimWrapper')  # float32
_base_.param_scheduler[0].end = _base_.param_scheduler[1].begin = 1
_base_.param_scheduler[1].end = 3
train_cfg = dict(max_epochs=3)
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture(scope='session')
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope='session')
def data(tmp_path_factory) -> Path:
    """Folder of random images: four to train on and two to evaluate of each of six classes."""
    folder = tmp_path_factory.mktemp('data')
    draw = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 2)):
        for label in range(6):
            target = folder / split / f'class_{label}'
            target.mkdir(parents=True)
            for i in range(count):
                image = draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(image).save(target / f'{i}.png')
    return folder


@pytest.fixture(scope='session')
def tokenizer(tmp_path_factory) -> Path:
    """Checkpoint of a random tokenizer with one token per 4 x 4 pixels."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('tokenizer') / 'tokenizer.pth'
    torch.save(dict(state_dict=DVAETokenizer(num_codes=16, width=8, num_groups=3, num_blocks=1).state_dict()), path)
    return path


@pytest.fixture(scope='session')
def pretrain_config(tmp_path_factory, data, tokenizer) -> Path:
    """The 300-epoch recipe of BEiT base, with two blocks, three epochs of six steps, in float32."""
    path = tmp_path_factory.mktemp('pretrain') / 'tiny_pretrain.py'
    path.write_text((PRETRAIN + SHORT).format(root=ROOT, arch=ARCH, data=data, tokenizer=tokenizer))
    return path


@pytest.fixture(scope='session')
def tokenizer_v2(tmp_path_factory) -> Path:
    """Checkpoint of a random tokenizer of BEiT v2 with one token per 8 x 8 pixels."""
    torch.manual_seed(0)
    model = VQKDTokenizer(TOKENIZER_ARCH, img_size=32, patch_size=8, num_codes=16, code_dim=8)
    path = tmp_path_factory.mktemp('tokenizer_v2') / 'tokenizer.pth'
    torch.save(dict(state_dict=model.network.state_dict()), path)
    return path


@pytest.fixture(scope='session')
def pretrain_config_v2(tmp_path_factory, data, tokenizer_v2) -> Path:
    """The 300-epoch recipe of BEiT v2 base, shrunk likewise."""
    path = tmp_path_factory.mktemp('pretrain_v2') / 'tiny_pretrain_v2.py'
    values = dict(root=ROOT, arch=ARCH, data=data, tokenizer=tokenizer_v2, tokenizer_arch=TOKENIZER_ARCH)
    path.write_text((PRETRAIN_V2 + SHORT).format(**values))
    return path


@pytest.fixture(scope='session')
def mdm_configs(tmp_path_factory, tokenizer_v2) -> dict[str, Path]:
    """The recipe of BEiT-3 base, with two blocks, eight steps of two images, two texts and two pairs, in float32.

    By where pairs come from: 'lines', or 'shards', of which three have eight pairs each.
    """
    pytest.importorskip('sentencepiece')
    pytest.importorskip('webdataset')
    folder = tmp_path_factory.mktemp('mdm')
    sources = builders_mdm.write_sources(folder / 'sources')
    shards = builders_mdm.write_shards(folder / 'shards', 3, 8)
    pairs = dict(
        lines=f"dict(data_root='{sources}', pipeline=_base_.pair_pipeline)",
        shards=f"dict(_delete_=True, type='mmbeit.Shards', shards='{shards}', pipeline=_base_.pair_pipeline, block=5, "
        'num_streams=2)',
    )
    values = dict(root=ROOT, arch=ARCH, tokenizer_arch=TOKENIZER_ARCH, tokenizer=tokenizer_v2, sources=sources)
    values['text_tokenizer'] = builders_mdm.train_tokenizer(folder)
    for name, pair in pairs.items():
        (folder / f'tiny_mdm_{name}.py').write_text(MDM.format(pair=pair, **values))
    return {name: folder / f'tiny_mdm_{name}.py' for name in pairs}


@pytest.fixture(scope='session')
def pretrained(tmp_path_factory, pretrain_config) -> Path:
    """Work folder of three epochs of pretraining without an interruption."""
    work_dir = tmp_path_factory.mktemp('pretrained')
    call_tool('train', pretrain_config, '--work-dir', work_dir)
    return work_dir


@pytest.fixture(scope='session')
def finetune_config(tmp_path_factory, data, pretrained) -> Path:
    """The fine-tuning recipe of BEiT base, shrunk likewise, from the pretrained weights, with an EMA of the weights."""
    path = tmp_path_factory.mktemp('finetune') / 'tiny_finetune.py'
    checkpoint = pretrained / 'epoch_3.pth'
    path.write_text((FINETUNE + SHORT).format(root=ROOT, arch=ARCH, data=data, pretrained=checkpoint))
    return path


@pytest.fixture(scope='session')
def finetuned(tmp_path_factory, finetune_config) -> Path:
    """Work folder of three epochs of fine-tuning without an interruption."""
    work_dir = tmp_path_factory.mktemp('finetuned')
    call_tool('train', finetune_config, '--work-dir', work_dir)
    return work_dir


@pytest.fixture(scope='session')
def teacher(tmp_path_factory) -> Path:
    """Weights of a random DINO of one block."""
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    sizes = dict(embed_dim=24, depth=1, num_heads=3, img_size=32, patch_size=8, num_classes=0)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(timm.create_model('vit_base_patch16_224.dino', pretrained=False, **sizes).state_dict(), path)
    return path


@pytest.fixture(scope='session')
def vqkd_config(tmp_path_factory, data, teacher) -> Path:
    """The recipe of VQ-KD with features of DINO, shrunk likewise, with what is not official switched on."""
    path = tmp_path_factory.mktemp('vqkd') / 'tiny_vqkd.py'
    path.write_text((VQKD + SHORT).format(root=ROOT, arch=ARCH, data=data, teacher=teacher))
    return path


@pytest.fixture(scope='session')
def vqkd_trained(tmp_path_factory, vqkd_config) -> Path:
    """Work folder of three epochs of VQ-KD without an interruption."""
    work_dir = tmp_path_factory.mktemp('vqkd_trained')
    call_tool('train', vqkd_config, '--work-dir', work_dir)
    return work_dir


_runs = iter(range(10**6))


def call_tool(name: str, *args: object) -> None:
    """Run a tool inside of this process, for speed.

    mmengine wants a new name for every run of a process. Runs with worker processes need a process of their own: the
    garbage collector stops the queues of a dropped DataLoader before the workers, each of which is then waited for.
    """
    args = [str(arg) for arg in args]
    options = args.index('--cfg-options') + 1 if '--cfg-options' in args else len(args)
    args[options:options] = [*([] if '--cfg-options' in args else ['--cfg-options']), f'experiment_name=r{next(_runs)}']
    runpy.run_path(str(ROOT / 'tools' / f'{name}.py'))['main'](args)


def run_command(*command: object, cwd: Path = ROOT, check: bool = True, **env: object) -> subprocess.CompletedProcess:
    """Run a command in a process of its own that finds this checkout."""
    env = {
        **os.environ,
        'PYTHONPATH': str(ROOT),
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
        **{key: str(value) for key, value in env.items()},
    }
    env.pop('MMBEIT_TRACEBACK', None)
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def logged(work_dir: Path) -> list[dict]:
    """What was logged to `scalars.json`, last run last, without what depends on the clock."""
    lines = [line for path in sorted(work_dir.glob('*/vis_data/scalars.json')) for line in path.open()]
    return [{k: v for k, v in json.loads(line).items() if k not in ('time', 'data_time', 'memory')} for line in lines]


@pytest.fixture(scope='session')
def tool() -> Callable[..., None]:
    """:func:`call_tool`."""
    return call_tool


@pytest.fixture(scope='session')
def command() -> Callable[..., subprocess.CompletedProcess]:
    """:func:`run_command`."""
    return run_command


@pytest.fixture(scope='session')
def python(command) -> Callable[..., subprocess.CompletedProcess]:
    """:func:`run_command` of this interpreter."""
    return lambda *args, **kwargs: command(sys.executable, *args, **kwargs)


@pytest.fixture(scope='session')
def log() -> Callable[[Path], list[dict]]:
    """:func:`logged`."""
    return logged


@pytest.fixture(scope='session')
def digits(tmp_path_factory, python) -> Path:
    """The data of the quickstarts."""
    folder = tmp_path_factory.mktemp('digits')
    python(ROOT / 'tools' / 'dataset_converters' / 'digits.py', folder)
    return folder
