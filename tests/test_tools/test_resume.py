"""A run that was interrupted and resumed gives the numbers and the weights of one that was not."""

import json
import os
import shutil
import signal

import pytest
import torch
from mmengine.fileio import load

from mmbeit.checkpoint.mmengine_loader import load_from_local

STEPS = 6  # per epoch
WORKERS = ('train_dataloader.num_workers=2', 'train_dataloader.persistent_workers=True')
KILLED = """
import os, signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Kill(Hook):
    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter == {step}:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(params=['pretrain', 'finetune', 'vqkd'])
def run(request):
    """A config, and the work folder of its run without an interruption."""
    names = dict(
        pretrain=('pretrain_config', 'pretrained'),
        finetune=('finetune_config', 'finetuned'),
        vqkd=('vqkd_config', 'vqkd_trained'),
    )
    return [request.getfixturevalue(name) for name in names[request.param]]


def identical(one, other) -> bool:
    """Whether two trees of tensors and plain values are equal, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(identical(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(identical, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def assert_same_end(log, work_dir, reference):
    """The losses of the last epoch, and everything that the last checkpoint restores but the history of the log."""
    steps = {}
    for line in log(work_dir):
        steps[line['step'], 'loss' in line] = line  # validation is logged with the number of the epoch
    expected = {(line['step'], 'loss' in line): line for line in log(reference)}
    last = [key for key in expected if key[0] > 2 * STEPS or key == (3, False)]
    assert sum(key[1] for key in last) == STEPS
    assert {key: steps[key] for key in last} == {key: expected[key] for key in last}
    ours, theirs = (load_from_local(str(folder / 'epoch_3.pth')) for folder in (work_dir, reference))
    for part in ('state_dict', 'optimizer', 'ema_state_dict', 'param_schedulers'):
        assert identical(ours.get(part), theirs.get(part)), part


def test_resumed_run_is_identical(run, tool, log, tmp_path):
    config, reference = run
    tool('train', config, '--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_epochs=2')
    tool('train', config, '--work-dir', tmp_path, '--resume')
    assert_same_end(log, tmp_path, reference)


def test_run_killed_within_an_epoch_and_resumed_is_identical(run, root, python, log, tmp_path):
    """With two workers, where the reference had none."""
    config, reference = run
    (tmp_path / 'kill_hook.py').write_text(KILLED.format(step=2 * STEPS + 3))
    killed = tmp_path / 'killed.py'
    killed.write_text(
        f"_base_ = '{config}'\ncustom_imports = dict(imports=['kill_hook'])\n"
        "custom_hooks = [*_base_.custom_hooks, dict(type='Kill')]\n"
    )
    work_dir = tmp_path / 'run'
    options = ['--work-dir', work_dir, '--cfg-options', *WORKERS]
    done = python('tools/train.py', killed, *options, check=False, PYTHONPATH=f'{tmp_path}:{root}')
    assert done.returncode == -signal.SIGKILL, done.stdout[-3000:] + done.stderr[-3000:]
    assert not (work_dir / 'epoch_3.pth').exists()
    python('tools/train.py', config, '--resume', *options)
    assert_same_end(log, work_dir, reference)


@pytest.mark.parametrize('keep', [1, 2])
def test_run_killed_while_it_saves(keep, pretrain_config, pretrained, tool, log, tmp_path, monkeypatch):
    """The checkpoint before is still there, even if one is all that is kept, and the torn one is not in the way."""
    options = ['--work-dir', tmp_path, '--cfg-options', f'default_hooks.checkpoint.max_keep_ckpts={keep}']
    saves = []

    def fsync(descriptor):
        saves.append(descriptor)
        if len(saves) == 3:
            os.truncate(descriptor, 1000)
            raise KeyboardInterrupt

    monkeypatch.setattr(os, 'fsync', fsync)
    with pytest.raises(KeyboardInterrupt):
        tool('train', pretrain_config, *options)
    names = [f'epoch_{i}.pth' for i in range(3 - keep, 3)]
    assert sorted(path.name for path in tmp_path.glob('epoch_*')) == [*names, 'epoch_3.pth.partial']
    tool('train', pretrain_config, '--resume', *options)
    names = [f'epoch_{i}.pth' for i in range(4 - keep, 4)]
    assert sorted(path.name for path in tmp_path.glob('epoch_*')) == names
    assert_same_end(log, tmp_path, pretrained)


@pytest.mark.parametrize('noted', ['epoch_2.pth', 'epoch_9.pth', None])
def test_truncated_checkpoint_is_skipped(noted, pretrain_config, pretrained, tool, log, tmp_path, capsys):
    """What mmengine's own hook leaves behind, or a full disk, whatever is noted as the last checkpoint."""
    shutil.copy(pretrained / 'epoch_1.pth', tmp_path)
    (tmp_path / 'epoch_2.pth').write_bytes((pretrained / 'epoch_2.pth').read_bytes()[:-1000])
    if noted:
        (tmp_path / 'last_checkpoint').write_text(str(tmp_path / noted))
    tool('train', pretrain_config, '--work-dir', tmp_path, '--resume')
    assert f'going on from {tmp_path}/epoch_1.pth' in capsys.readouterr().err
    assert_same_end(log, tmp_path, pretrained)


def test_resume_without_a_checkpoint_starts(pretrain_config, pretrained, tool, log, tmp_path):
    """So that a job can be queued again with the same command, whenever it was stopped."""
    tool('train', pretrain_config, '--work-dir', tmp_path, '--resume')
    assert_same_end(log, tmp_path, pretrained)


def test_evaluation_gives_the_accuracy_of_training(finetune_config, finetuned, tool, log, tmp_path):
    last = [line for line in log(finetuned) if 'accuracy/top1' in line][-1]
    out = tmp_path / 'metrics.json'
    tool('test', finetune_config, finetuned / 'epoch_3.pth', '--work-dir', tmp_path, '--out', out)
    assert json.loads(out.read_text()) == {key: last[key] for key in ('accuracy/top1', 'accuracy/top5')}


def test_evaluation_does_not_need_the_pretrained_weights(finetune_config, finetuned, tool, tmp_path):
    options = ['--cfg-options', 'model.backbone.init_cfg.checkpoint=none.pth', '--work-dir', tmp_path]
    tool('test', finetune_config, finetuned / 'epoch_3.pth', *options)


def test_predictions_are_written(finetune_config, finetuned, tool, log, tmp_path):
    out = tmp_path / 'pred.pkl'
    tool('test', finetune_config, finetuned / 'epoch_3.pth', '--work-dir', tmp_path, '--out', out)
    predictions = load(out)
    right = sum(int(sample['pred_label']) == int(sample['gt_label']) for sample in predictions)
    last = [line for line in log(finetuned) if 'accuracy/top1' in line][-1]
    assert len(predictions) == 12
    assert 100 * right / 12 == pytest.approx(last['accuracy/top1'])
