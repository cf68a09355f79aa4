"""Training of VQ-KD through the tools, in one process and in two, and what its tokenizer is good for afterwards."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmbeit.checkpoint.load import read_checkpoint
from mmbeit.checkpoint.mmengine_loader import load_from_local
from mmbeit.models import VQKDTokenizer
from test_tools.test_dist import free_port

PROBE = """
from pathlib import Path
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Probe(Hook):
    def before_train(self, runner):
        self.steps = []

    def after_train_iter(self, runner, *args, **kwargs):
        model = runner.model.module
        assert not any(name.startswith('teacher') for name, _ in runner.model.named_parameters())
        self.steps.append({name: value.clone() for name, value in model.tokenizer.quantizer.state_dict().items()})

    def after_train(self, runner):
        model = runner.model.module
        state = dict(steps=self.steps, model=model.state_dict(), teacher=model.teacher.state_dict())
        torch.save(state, Path(runner.work_dir, f'rank{get_rank()}.probe'))
"""
SIZES = dict(
    arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48),
    img_size=32,
    patch_size=8,
    num_codes=16,
    code_dim=4,
)


def refused(capsys, tool, *args):
    """The one line that a tool prints before it ends with status 2."""
    with pytest.raises(SystemExit) as error:
        tool(*args)
    assert error.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1
    return lines[0]


def test_log_has_the_losses_and_the_health_of_the_codebook(vqkd_trained, log):
    lines = [line for line in log(vqkd_trained) if 'loss' in line]
    assert len(lines) == 18
    for line in lines:
        assert line['loss'] == pytest.approx(line['loss_reconstruction'] + line['loss_commitment'], rel=1e-5)
        assert 1 <= line['perplexity'] <= 16
    assert lines[-1]['loss_reconstruction'] < lines[0]['loss_reconstruction']
    last = lines[-1]
    assert last['codebook_usage'] == pytest.approx(100 * (16 - last['dead_codes']) / 16)
    assert 1 <= last['codebook_perplexity'] <= 16
    validations = [line for line in log(vqkd_trained) if 'codebook/usage' in line]
    assert len(validations) == 3
    assert all(0 < line['codebook/error'] < 2 for line in validations)


def test_work_folder_has_a_picture_of_each_validation(vqkd_trained):
    names = sorted(path.name for path in vqkd_trained.glob('*/vis_data/vis_image/*.png'))
    assert names == ['codebook_1.png', 'codebook_2.png', 'codebook_3.png']
    for path in vqkd_trained.glob('*/vis_data/vis_image/*.png'):
        assert np.array(Image.open(path)).std() > 10


def test_evaluation_gives_the_numbers_of_the_last_validation(vqkd_config, vqkd_trained, tool, log, tmp_path):
    out = tmp_path / 'metrics.json'
    tool('test', vqkd_config, vqkd_trained / 'epoch_3.pth', '--work-dir', tmp_path, '--out', out)
    last = [line for line in log(vqkd_trained) if 'codebook/usage' in line][-1]
    found = json.loads(out.read_text())
    assert found.keys() == {f'codebook/{name}' for name in ('usage', 'dead_codes', 'perplexity', 'error')}
    assert found == pytest.approx({key: last[key] for key in found})


def test_pretraining_takes_the_tokenizer_that_was_trained(vqkd_trained, pretrain_config, tool, log, tmp_path):
    path = vqkd_trained / 'epoch_3.pth'
    config = tmp_path / 'on_vqkd.py'
    config.write_text(
        f"_base_ = '{pretrain_config}'\n"
        f"init_cfg = dict(type='Pretrained', checkpoint='{path}')\n"
        "model = dict(target_generator=dict(_delete_=True, type='mmbeit.VQKDTokenizer', init_cfg=init_cfg, "
        f'**{SIZES!r}))\n'
        '_base_.train_pipeline[4].target_size = 32\n'
        'train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))\n'
        'train_cfg = dict(max_epochs=1)\n'
    )
    tool('train', config, '--work-dir', tmp_path)
    assert all(np.isfinite(line['loss']) for line in log(tmp_path))
    state = load_from_local(str(path))['state_dict']
    tokenizer = VQKDTokenizer(**SIZES, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    tokenizer.init_weights()
    assert torch.equal(tokenizer.network.quantizer.codebook, state['tokenizer.quantizer.codebook'])
    assert not any(key.startswith('teacher') for key in state)


def test_collapse_stops_the_run_with_one_line(vqkd_config, tool, tmp_path, capsys):
    (tmp_path / 'config.py').write_text(
        f"_base_ = '{vqkd_config}'\nmodel = dict(tokenizer=dict(num_codes=4096, revive_below=0.0))\n"
        '_base_.custom_hooks[-1].update(min_usage=20, patience=2)\ncustom_hooks = _base_.custom_hooks\n'
    )
    line = refused(capsys, tool, 'train', tmp_path / 'config.py', '--work-dir', tmp_path)
    assert 'the codebook is collapsing: in iteration 4' in line
    assert 'revive_below=0.1' in line


def test_missing_teacher_is_named_before_anything_slow_happens(vqkd_config, tool, tmp_path, capsys):
    options = ['--work-dir', tmp_path, '--cfg-options', 'model.teacher.init_cfg.checkpoint=none.pth']
    assert 'no such checkpoint: none.pth, named by model.teacher' in refused(
        capsys, tool, 'train', vqkd_config, *options
    )


def test_two_processes_have_one_codebook_in_every_step(vqkd_config, teacher, command, tmp_path):
    (tmp_path / 'rank_probe.py').write_text(PROBE)
    (tmp_path / 'config.py').write_text(
        f"_base_ = '{vqkd_config}'\ncustom_imports = dict(imports=['rank_probe'])\n"
        "custom_hooks = [*_base_.custom_hooks, dict(type='Probe')]\ntrain_cfg = dict(max_epochs=1)\n"
    )
    command(
        *('bash', 'tools/dist_train.sh', tmp_path / 'config.py', 2, '--work-dir', tmp_path / 'run'),
        PORT=free_port(),
        PYTHONPATH=tmp_path,
    )
    one, other = (read_checkpoint(tmp_path / 'run' / f'rank{rank}.probe') for rank in (0, 1))
    assert len(one['steps']) == len(other['steps']) == 3  # 24 images, two processes with 4 each
    for ours, theirs in zip(one['steps'] + [one['model']], other['steps'] + [other['model']], strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.equal(one['steps'][0]['codebook'], one['steps'][-1]['codebook'])
    expected = read_checkpoint(teacher)
    for state in (one['teacher'], other['teacher']):
        assert all(torch.equal(state[f'network.{name}'], expected[name]) for name in expected)
