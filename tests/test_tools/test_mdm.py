"""Masked data modeling through the training tool, killed and resumed, by one process and by two."""

import re
import signal

import pytest
import torch
from processes import free_port

from mmbeit.checkpoint.mmengine_loader import load_from_local

PROBE = """
import os, signal
from pathlib import Path
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Probe(Hook):
    '''Notes where the samples of each step are from, and kills all processes after one of them.'''

    def __init__(self, kill=None):
        self.kill = kill

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        names = {name: [(s.get('img_path'), s.get('text_path'), s.get('masked_text_ids'), s.get('text_mask'))
                        for s in group['data_samples']] for name, group in data_batch.items()}
        with Path(runner.work_dir, f'samples_{get_rank()}.txt').open('a') as file:
            print(runner.iter, names, file=file)
        if runner.iter + 1 == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
"""
CHILD = """
_base_ = '{config}'
custom_imports = dict(imports=['samples_probe'])
custom_hooks = [*_base_.custom_hooks, dict(type='Probe', kill={kill})]
"""


@pytest.fixture(scope='module')
def probed(tmp_path_factory, mdm_configs):
    """Configs with a probe that kills the run after five steps, one after the last checkpoint, or does not."""
    folder = tmp_path_factory.mktemp('probed')
    (folder / 'samples_probe.py').write_text(PROBE)
    for name, config in mdm_configs.items():
        for kill in (None, 5):
            (folder / f'{name}_{kill}.py').write_text(CHILD.format(config=config, kill=kill))
    return folder


@pytest.fixture(scope='module')
def reference(tmp_path_factory, probed, root, python):
    """Work folders of runs without an interruption, of one process without workers."""
    folder = tmp_path_factory.mktemp('reference')
    for name in ('lines', 'shards'):
        python('tools/train.py', probed / f'{name}_None.py', '--work-dir', folder / name, PYTHONPATH=f'{probed}:{root}')
    return folder


def steps(work_dir, rank=0):
    """The samples of each step, where a step was done twice the second time."""
    lines = (work_dir / f'samples_{rank}.txt').read_text().splitlines()
    return {int(step): samples for step, samples in (line.split(' ', 1) for line in lines)}, len(lines)


def assert_same_end(log, work_dir, reference):
    losses = [{line['step']: line for line in log(folder)} for folder in (work_dir, reference)]
    assert losses[0] == losses[1] and len(losses[0]) == 8
    ours, theirs = (load_from_local(str(folder / 'iter_8.pth')) for folder in (work_dir, reference))
    assert ours['state_dict'].keys() == theirs['state_dict'].keys()
    assert all(torch.equal(value, theirs['state_dict'][name]) for name, value in ours['state_dict'].items())
    assert ours.get('streams') == theirs.get('streams')


@pytest.mark.parametrize('pairs', ['lines', 'shards'])
def test_run_killed_between_checkpoints_and_resumed_is_identical(pairs, probed, reference, root, python, log, tmp_path):
    """Samples, masks, losses and weights, with two workers, where the reference had none."""
    options = ['--work-dir', tmp_path, '--cfg-options', 'train_dataloader.num_workers=2']
    env = dict(PYTHONPATH=f'{probed}:{root}')
    done = python('tools/train.py', probed / f'{pairs}_5.py', *options, check=False, **env)
    assert done.returncode == -signal.SIGKILL, done.stdout[-3000:] + done.stderr[-3000:]
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['iter_2.pth', 'iter_4.pth']
    done = python('tools/train.py', probed / f'{pairs}_None.py', '--resume', *options, **env)
    (ours, count), (theirs, _) = steps(tmp_path), steps(reference / pairs)
    assert ours == theirs and count == 9  # the fifth step was done again
    assert len(set(ours.values())) == 8
    assert_same_end(log, tmp_path, reference / pairs)
    assert 'image: goes on after sample 8 of 12 in pass 1' in done.stdout
    assert 'text: goes on after sample 8 of 20 in pass 1' in done.stdout
    line = {
        'lines': 'pair: goes on after sample 8 of 10 in pass 1',
        'shards': r'pair: goes on in 2 streams of 1 processes, the first one \d samples after sample \d of .*\.tar',
    }[pairs]
    assert re.search(line, done.stdout)


def test_two_processes_killed_and_resumed(probed, root, command, log, tmp_path):
    """Each with streams of its own, in the one checkpoint of the first."""
    env = dict(PYTHONPATH=f'{probed}:{root}', PORT=free_port())
    workers = ['--cfg-options', 'train_dataloader.num_workers=2']
    tool = ['bash', 'tools/dist_train.sh']
    command(*tool, probed / 'shards_None.py', 2, '--work-dir', tmp_path / 'whole', *workers, **env)
    done = command(*tool, probed / 'shards_5.py', 2, '--work-dir', tmp_path / 'cut', *workers, check=False, **env)
    assert done.returncode and (tmp_path / 'cut' / 'iter_4.pth').is_file()
    assert not (tmp_path / 'cut' / 'iter_6.pth').exists()
    command(*tool, probed / 'shards_None.py', 2, '--work-dir', tmp_path / 'cut', '--resume', *workers, **env)
    ranks = [steps(tmp_path / 'cut', rank)[0] for rank in range(2)]
    assert ranks == [steps(tmp_path / 'whole', rank)[0] for rank in range(2)]
    assert not set(ranks[0].values()) & set(ranks[1].values())
    assert_same_end(log, tmp_path / 'cut', tmp_path / 'whole')
    places = load_from_local(str(tmp_path / 'cut' / 'iter_8.pth'))['streams']['pair']['places']
    assert [sorted(streams) for streams in places] == [[0, 1], [0, 1]]
