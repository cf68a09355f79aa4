"""The benchmark, with tiny models: that contenders agree, are timed, and that the record has it all."""

import json
import shutil
import subprocess
import sys

import pytest

from test_tools.test_quickstart import ROOT, run

pytest.importorskip('mmpretrain.models')


def test_contenders_agree_and_are_timed_in_turn(tmp_path):
    cases = ['pretraining-v2-base', 'data-large']
    options = ['--quick', '--only', *cases, '--dtype', 'float32', '--device', 'cpu', '--budget', '1', '--batch', '3']
    output = run('tools/benchmarks/run.py', *options, '--out-dir', str(tmp_path))
    record = json.loads(next(tmp_path.glob('cpu_*.json')).read_text())
    assert record['command'].startswith('python tools/benchmarks/run.py --quick --only pretraining-v2-base data-large')
    assert {'torch', 'device', 'python', 'date'} <= record['machine'].keys()
    assert [case['case'] for case in record['cases']] == cases
    for case in record['cases']:
        rounds = {len(one['times']) for one in case['measured'].values()}
        assert len(rounds) == 1 and min(rounds) >= 3
        for name, one in case['measured'].items():
            assert one['unable'] is None and min(one['times']) > 0 and one['memory'] > 0, name
    training, data = record['cases']
    assert {one['items'] for one in training['measured'].values()} == {training['batch']} == {3}
    assert training['measured']['mmpretrain']['difference'] < 1e-4 and 0 < training['share_of_matmul'] < 1
    ran = {name: one['attention'] for name, one in training['measured'].items()}
    assert (
        ran == dict(mmbeit=['BiasedAttention'], mmpretrain=['products and softmax'])
        and data['measured']['mmbeit']['attention'] is None
    )
    ours = ['mmbeit', 'mmbeit, colours by the same core', 'mmbeit, official order']
    assert list(data['measured']) == [*ours, 'mmpretrain', 'decoding alone']
    table = next(tmp_path.glob('cpu_*.md')).read_text()
    assert table.count('| mmpretrain | ') == 2 and 'mmpretrain' in output and '(float32, --batch 3)' in table
    assert 'Attention: mmbeit BiasedAttention; mmpretrain products and softmax.' in table


def test_times_are_known_before_memory_is_measured():
    """So that a record has them if the rest is broken off."""
    script = """
from cases import CASES
from measure import Setting
from run import measure
from workers import Workers
with Workers() as workers:
    for record in measure(CASES['vqkd-base'], Setting('cpu', 'float32', quick=True), 0, workers):
        one = record.measured['mmbeit']
        print(len(one.times) >= 3, one.memory is not None)
"""
    command = [sys.executable, '-c', script]
    done = subprocess.run(command, cwd=ROOT / 'tools/benchmarks', capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ['True False', 'True True']


def test_each_project_has_a_process_of_its_own():
    """One that ends costs what it was building, and the next call has a new one."""
    script = """
import os
from measure import UnableError
from workers import Workers, output, project
assert [project(name) for name in ('timm compiled', 'mmseg', 'decoding alone')] == ['timm', 'mmseg', 'mmbeit']
with Workers() as workers:
    first = [workers.call(name, os.getpid) for name in ('mmbeit', 'mmbeit, rows', 'timm')]
    for function, argument in ((os._exit, 1), (output, 'timm')):
        try:
            workers.call('timm', function, argument)
        except UnableError as error:
            print(error)
    again = [workers.call(name, os.getpid) for name in ('mmbeit', 'timm')]
print(first[0] == first[1] == again[0], len({os.getpid(), *first, *again}))
"""
    command = [sys.executable, '-c', script]
    done = subprocess.run(command, cwd=ROOT / 'tools/benchmarks', capture_output=True, text=True, check=True)
    ended, lost, processes = done.stdout.splitlines()[-3:]
    assert ended == 'its process ended, such as for want of memory'
    assert lost == 'timm is lost: its process ended' and processes == 'True 4'


def test_processes_end_with_a_benchmark_that_is_killed():
    script = """
import os
from workers import Workers
print(Workers().call('timm', os.getpid), flush=True)
os.kill(os.getpid(), 9)
"""
    command = [sys.executable, '-c', script]
    # Whoever has its output open is waited for.
    done = subprocess.run(command, cwd=ROOT / 'tools/benchmarks', capture_output=True, text=True, timeout=120)
    assert done.returncode == -9 and int(done.stdout) > 0


@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile has no compiler here')
def test_each_kernel_of_attention_has_a_turn():
    script = """
from cases import CASES
from measure import Setting, attention_kernels, distance
contenders = [build(Setting('cpu', 'float32', quick=True)) for build in CASES['kernels-224'].contenders.values()]
outputs = [contender.output() for contender in contenders]
assert all(distance(output, outputs[0]) < 1e-5 for output in outputs)
for contender in contenders:
    print(attention_kernels(contender.step))
"""
    command = [sys.executable, '-c', script]
    done = subprocess.run(command, cwd=ROOT / 'tools/benchmarks', capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith('[')]
    assert lines == [*3 * ["['flash_attention_for_cpu']"], "['compiled code']"]


def test_the_other_cases_can_be_built_and_run():
    """One step of every contender, with the tiny models, and what is compared of it."""
    script = """
from cases import CASES
from measure import Setting, distance
from run import against, named
assert list(against(CASES['pretraining-v1-base-compiled'], ['timm']).contenders) == ['mmbeit compiled', 'timm compiled']
assert against(CASES['scaling-depth'], []) == CASES['scaling-depth']
assert named(['inference-224']) == {'inference-224'} and len(named(['scaling', 'data'])) == 4
names = 'segmentation-512', 'inference-512-segmentation', 'vqkd-base', 'vqa-base', 'scaling-depth', 'startup-train'
for name in names:
    outputs = []
    for contender in CASES[name].contenders.values():
        contender = contender(Setting('cpu', 'float32', quick=True))
        if contender.output is not None:
            outputs.append(contender.output())
        contender.step()
    assert all(distance(output, outputs[0]) < 1e-4 for output in outputs), name
    print(name, len(outputs))
"""
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=ROOT / 'tools/benchmarks', capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(('seg', 'inf', 'vq', 'sca', 'sta'))]
    counts = dict(line.split() for line in lines)
    compared = {'segmentation-512': '2', 'inference-512-segmentation': '2', 'vqkd-base': '1', 'vqa-base': '1'}
    assert counts == {**compared, 'scaling-depth': '0', 'startup-train': '0'}


def test_growth_is_compared_with_operations():
    """Twice the operations in three times the time are 1.5."""
    script = """
from measure import Case, Measured, Setting
from report import Record, rows
first, second = Measured(1, [1.0, 1.0], flops=10), Measured(1, [3.0, 3.0], flops=20)
case = Case('x', 'x', {}, growth=True)
print([row[4] for row in rows(Record(case, Setting('cpu', 'float32'), dict(a=first, b=second), None))])
"""
    command = [sys.executable, '-c', script]
    done = subprocess.run(command, cwd=ROOT / 'tools/benchmarks', capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['', '1.50']"


@pytest.mark.parametrize(
    ('option', 'value', 'status', 'message'),
    [
        ('--only', 'nothing', 1, "no case 'nothing': expected some of pretraining-v1-base, "),
        ('--batch', '0', 2, 'run.py: error: argument --batch: 0 is not 1 or more'),
    ],
)
def test_a_bad_option_is_one_line(option, value, status, message):
    command = [sys.executable, 'tools/benchmarks/run.py', option, value]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status and not done.stdout
    assert done.stderr.strip().splitlines()[-1].startswith(message)
