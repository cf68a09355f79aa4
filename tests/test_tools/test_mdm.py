"""Masked data modeling through the training tool, killed and resumed, by one process and by two."""

import re
import signal

import builders_mdm
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


@pytest.mark.filterwarnings('ignore:a text of .* is cut off')
def test_pairs_alone(mdm_configs, tool, log, tmp_path):
    """As in docs/masked_data_modeling.md, at a learning rate for six pairs instead of 6144 samples."""
    groups = 'train_dataloader.dataset.groups'
    options = [f'{groups}.image=None', f'{groups}.text=None', 'train_cfg.max_iters=2']
    tool('train', mdm_configs['lines'], '--work-dir', tmp_path, '--auto-scale-lr', '--cfg-options', *options)
    first, last = log(tmp_path)
    losses = {name for name in first if 'loss' in name}
    assert losses == {'loss', 'pair_image_loss', 'pair_text_loss'}
    assert last['lr'] == pytest.approx(1e-3 * 6 / 6144)


def test_what_is_broken_in_a_shard_is_named_and_counted(mdm_configs, tool, log, tmp_path):
    pair = dict(png=builders_mdm.png(0), txt=b'a man')
    broken = dict(txt=b'a man'), dict(pair, png=b'none'), dict(pair, txt=b' ')
    for shard in range(2):
        samples = [(str(i), files) for i, files in enumerate([*broken, *[pair] * 9])]
        builders_mdm.write_tar(tmp_path / f'{shard}.tar', samples)
    (tmp_path / '2.tar').write_bytes((tmp_path / '1.tar').read_bytes()[:9000])
    options = ['--cfg-options', f'train_dataloader.dataset.groups.pair.shards={tmp_path}/{{0..3}}.tar']
    with pytest.warns(UserWarning) as warned:
        tool('train', mdm_configs['shards'], '--work-dir', tmp_path / 'run', *options)
    text = '\n'.join(str(warning.message) for warning in warned)
    for line in (
        r'/[012].tar/0 has no jpg or jpeg or png or webp, only txt; it is skipped',
        r'cannot read image .*/[012].tar/1.png: .* no format of images that .*; another image takes its place',
        r"/[012].tar/2.txt: the text '' is empty; another sample takes its place",
        r'shard .*/2.tar cannot be read after \d samples: .*; the next one follows',
        r'shard .*/3.tar is missing; it is skipped',
    ):
        assert re.search(line, text), text
    skipped = [line.get('skipped_samples', 0) for line in log(tmp_path / 'run')]
    assert skipped == sorted(skipped) and skipped[-1] == text.count('.tar/') > 3


@pytest.mark.parametrize(
    ('option', 'line'),
    [
        ('num_workers=3', "error: num_workers 3 does not divide the 2 streams of 'pair'"),
        ('batch_size=4', 'error: batch_size 4 is no multiple of 3'),
        ('dataset.ratio.pear=1', "error: train_dataloader: .*ratio is of .'pear'.*, which are not among the groups"),
        ('dataset.groups.text.ann_file=none.txt', 'error: no such file: .*none.txt, named by train_dataloader'),
        ('dataset.groups.text.data_root=nowhere', 'error: no such folder: nowhere'),
        ('dataset.groups.pair.shards=none_{0..7}.tar', 'error: train_dataloader: no such shards: none_0.tar to none_7'),
        ('dataset.groups.pair.num_streams=0', r'error: train_dataloader: .*num_streams \(0\) is not positive'),
    ],
)
def test_wrong_options_cost_a_line(option, line, mdm_configs, tool, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv('MMBEIT_TRACEBACK', raising=False)
    config = tmp_path / 'mine.py'
    config.write_text(
        f"_base_ = '{mdm_configs['shards']}'\ntrain_dataloader = dict(dataset=dict(ratio=dict(text=1)))\n"
    )
    with pytest.raises(SystemExit, match='2'):
        tool('train', config, '--work-dir', tmp_path, '--cfg-options', f'train_dataloader.{option}')
    assert re.search(line, capsys.readouterr().err.splitlines()[-1])
