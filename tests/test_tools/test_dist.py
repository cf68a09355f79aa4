"""Two processes on CPUs through the launch scripts, and what the scripts pass on to torchrun and srun."""

import json
import math
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from processes import free_port

from mmbeit.checkpoint.load import read_checkpoint
from mmbeit.checkpoint.mmengine_loader import load_from_local

PROBE = """
from pathlib import Path
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Probe(Hook):
    def after_train(self, runner):
        model = runner.model
        assert type(model).__name__ == 'MMDistributedDataParallel'
        generator = model.module.target_generator
        assert not any(name.startswith('target_generator') for name, _ in model.named_parameters())
        state = dict(model=model.module.state_dict(), generator=generator.state_dict(), iter=runner.iter)
        torch.save(state, Path(runner.work_dir, f'rank{get_rank()}.probe'))
"""


CHILD = """
_base_ = '{config}'
custom_imports = dict(imports=['rank_probe'])
custom_hooks = [*_base_.custom_hooks, dict(type='Probe'){average}]
train_cfg = dict(max_epochs={epochs})
default_hooks = dict(checkpoint=dict(interval={epochs}))
"""


class Run(NamedTuple):
    """Pretraining by two processes, each of which saves what it has at the end."""

    folder: Path
    epochs: int  # of three steps: 24 images, two processes with 4 each
    tokenizer: Path


@pytest.fixture(scope='module', params=['v1', 'v2 with an average of the weights'])
def two_ranks(request, tmp_path_factory, command) -> Run:
    suffix, epochs, average = ('', 1, '') if request.param == 'v1' else ('_v2', 17, ", dict(type='EMAHook')")
    config = request.getfixturevalue(f'pretrain_config{suffix}')
    folder = tmp_path_factory.mktemp('two_ranks')
    (folder / 'rank_probe.py').write_text(PROBE)
    (folder / 'config.py').write_text(CHILD.format(config=config, epochs=epochs, average=average))
    command(
        *('bash', 'tools/dist_train.sh', folder / 'config.py', 2, '--work-dir', folder / 'run'),
        PORT=free_port(),
        PYTHONPATH=folder,
    )
    return Run(folder / 'run', epochs, request.getfixturevalue(f'tokenizer{suffix}'))


def test_ranks_agree_and_share_the_steps(two_ranks):
    first, second = (read_checkpoint(two_ranks.folder / f'rank{rank}.probe') for rank in (0, 1))
    assert first['iter'] == second['iter'] == 3 * two_ranks.epochs
    assert first['model'].keys() == second['model'].keys()
    for name, tensor in first['model'].items():
        assert torch.equal(tensor, second['model'][name]), name


def test_one_checkpoint_without_the_tokenizer(two_ranks, log):
    file = f'epoch_{two_ranks.epochs}.pth'
    assert [path.name for path in two_ranks.folder.glob('*.pth')] == [file]
    checkpoint = load_from_local(str(two_ranks.folder / file))
    for key in {'state_dict', 'ema_state_dict'} & checkpoint.keys():
        assert not any('target_generator' in name or 'network' in name for name in checkpoint[key])
    assert ('ema_state_dict' in checkpoint) == (two_ranks.epochs > 1)
    losses = [line['loss'] for line in log(two_ranks.folder)]
    assert len(losses) == 3 * two_ranks.epochs
    assert all(map(math.isfinite, losses))


def test_tokenizer_is_neither_wrapped_nor_changed(two_ranks):
    expected = read_checkpoint(two_ranks.tokenizer)['state_dict']
    for rank in (0, 1):
        state = read_checkpoint(two_ranks.folder / f'rank{rank}.probe')['generator']
        assert {key.removeprefix('network.') for key in state} == expected.keys()
        assert all(torch.equal(value, expected[key.removeprefix('network.')]) for key, value in state.items())


def test_evaluation_gives_the_metric_of_one_process(finetune_config, finetuned, command, tool, tmp_path):
    checkpoint = finetuned / 'epoch_3.pth'
    tool('test', finetune_config, checkpoint, '--work-dir', tmp_path / 'one', '--out', tmp_path / 'one.json')
    # Batches of 4 of 12 images: padded to 8 for each of two processes, of which the last ones do not count.
    command(
        *('bash', 'tools/dist_test.sh', finetune_config, checkpoint, 2),
        *('--work-dir', tmp_path / 'two', '--out', tmp_path / 'two.json'),
        PORT=free_port(),
    )
    assert json.loads((tmp_path / 'one.json').read_text()) == json.loads((tmp_path / 'two.json').read_text())


def test_one_process_says_what_is_wrong(command, tmp_path):
    done = command('bash', 'tools/dist_train.sh', 'nothing', 2, check=False, PORT=free_port())
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1
    assert "no config 'nothing'" in lines[0]


@pytest.fixture
def arguments(tmp_path, root, command):
    """Run a script with a fake torchrun and srun; give the arguments that it was started with."""
    for name in ('torchrun', 'srun'):
        fake = tmp_path / 'bin' / name
        fake.parent.mkdir(exist_ok=True)
        fake.write_text(f'#!/bin/sh\necho {name}\necho "$PYTHONPATH"\nprintf "%s\\n" "$@"\n')
        fake.chmod(0o755)

    def run(script, *args, **env):
        done = command('bash', root / 'tools' / script, *args, PATH=f'{tmp_path}/bin:/usr/bin:/bin', **env)
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize(('script', 'inputs'), [('train', ('c.py',)), ('test', ('c.py', 'w.pth'))])
def test_several_nodes(script, inputs, arguments, root):
    name, path, *args = arguments(
        *(f'dist_{script}.sh', *inputs, 4, '--cfg-options', 'a.b=1 2'),
        **dict(NNODES=3, NODE_RANK=2, MASTER_ADDR='node0', PORT=1234),
    )
    assert name == 'torchrun'
    assert path == f'{root}/tools/..:{root}'
    flags = ['--nnodes=3', '--node_rank=2', '--master_addr=node0', '--master_port=1234', '--nproc_per_node=4']
    tool = f'{root}/tools/{script}.py'
    assert args == [*flags, tool, *inputs, '--launcher', 'pytorch', '--cfg-options', 'a.b=1 2']


@pytest.mark.parametrize(('script', 'inputs'), [('train', ('c.py',)), ('test', ('c.py', 'w.pth'))])
def test_slurm(script, inputs, arguments, root):
    name, _, *args = arguments(
        *(f'slurm_{script}.sh', 'part', 'job', *inputs, '--work-dir', 'a b'),
        **dict(GPUS=16, GPUS_PER_NODE=8, CPUS_PER_TASK=5, SRUN_ARGS='--exclusive --mem=0'),
    )
    assert name == 'srun'
    tool = ['python', '-u', f'{root}/tools/{script}.py', *inputs, '--launcher', 'slurm', '--work-dir', 'a b']
    assert args[-len(tool) :] == tool
    flags = args[: -len(tool)]
    assert flags[:3] == ['-p', 'part', '--job-name=job']
    assert {'--gres=gpu:8', '--ntasks=16', '--ntasks-per-node=8', '--cpus-per-task=5'} <= set(flags)
    assert {'--exclusive', '--mem=0'} <= set(flags)
    defaults = arguments(f'slurm_{script}.sh', 'part', 'job', *inputs)
    assert {'--gres=gpu:8', '--ntasks=8', '--ntasks-per-node=8'} <= set(defaults)


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_missing_arguments_are_explained(script, root):
    done = subprocess.run(['bash', root / 'tools' / script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f'usage: tools/{script} ')
    assert done.stderr.count('\n') == 1
