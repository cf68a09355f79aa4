"""The benchmark, with tiny models: that contenders agree, are timed, and that the record has it all."""

import json
import subprocess
import sys

import pytest

from test_tools.test_quickstart import ROOT, run

pytest.importorskip('mmpretrain.models')


def test_contenders_agree_and_are_timed_in_turn(tmp_path):
    cases = ['pretraining-v2-base', 'data-large']
    options = ['--quick', '--only', *cases, '--dtype', 'float32', '--device', 'cpu', '--budget', '1']
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
    assert training['measured']['mmpretrain']['difference'] < 1e-4 and 0 < training['share_of_matmul'] < 1
    assert list(data['measured']) == ['mmbeit', 'mmbeit, official order', 'mmpretrain', 'decoding alone']
    table = next(tmp_path.glob('cpu_*.md')).read_text()
    assert table.count('| mmpretrain | ') == 2 and 'mmpretrain' in output


def test_a_name_of_no_case_is_one_line():
    command = [sys.executable, 'tools/benchmarks/run.py', '--only', 'nothing']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.strip().splitlines()[-1].startswith("no case 'nothing': expected some of pretraining-v1-base, ")
