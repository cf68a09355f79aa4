"""`python -m mmbeit`, in this process, and what a config may be called by."""

import subprocess
import sys

import pytest

from mmbeit.__main__ import main
from mmbeit.engine import config


@pytest.fixture
def mmbeit(monkeypatch):
    def call(*args: object) -> None:
        monkeypatch.setattr(sys, 'argv', ['mmbeit', *map(str, args)])
        main()

    return call


def test_tools_are_listed_with_what_they_do(mmbeit, root, capsys):
    mmbeit()
    text = capsys.readouterr().out
    lines = dict(line.split(maxsplit=1) for line in text.splitlines() if line.startswith('  '))
    beside_run = {path.stem for path in (root / 'tools/benchmarks').glob('*.py')} - {'run', 'segmentation_memory'}
    assert lines.keys() == {path.stem for path in (root / 'tools').rglob('*.py')} - beside_run
    assert lines['train'] == 'Train a model'
    mmbeit('-h')
    assert capsys.readouterr().out == text


def test_arguments_are_passed_on(mmbeit, capsys):
    with pytest.raises(SystemExit, match='0'):
        mmbeit('test', '-h')
    assert 'usage: test.py [-h]' in capsys.readouterr().out


def test_a_tool_has_the_modules_beside_it(root):
    command = [sys.executable, '-m', 'mmbeit', 'run', '--list']
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith('pretraining-v1-base ')


def test_nested_tool(mmbeit, tmp_path, capsys):
    pytest.importorskip('sklearn')
    mmbeit('digits', tmp_path, '--num-splits', 1)
    assert capsys.readouterr().out.startswith(f'{tmp_path}: 1437 images to train on')


def test_unknown_tool(mmbeit, capsys):
    with pytest.raises(SystemExit, match='2'):
        mmbeit('trian')
    assert capsys.readouterr().err == "error: no tool 'trian'; did you mean train, run?\n"
    with pytest.raises(SystemExit, match='2'):
        mmbeit('xyz')
    err = capsys.readouterr().err
    assert err.startswith("error: no tool 'xyz'; there are ")
    assert 'train' in err


def test_config_by_path_name_and_model(tmp_path, monkeypatch):
    for name in ('configs/beit/one.py', 'configs/beit/benchmarks/two.py', 'configs/_base_/three.py', 'elsewhere.py'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'metafile.yml').write_text(
        'Models:\n- {Name: Mmbeit-Two_in1k, Config: configs/beit/benchmarks/two.py}\n- Name: no-config\n'
    )
    monkeypatch.setattr(config, 'resource_root', lambda: tmp_path)
    two = tmp_path / 'configs' / 'beit' / 'benchmarks' / 'two.py'
    assert config.find_config(str(tmp_path / 'elsewhere.py')) == tmp_path / 'elsewhere.py'
    for name in ('two', 'two.py', 'configs/beit/benchmarks/two.py', 'Mmbeit-Two_in1k'):
        assert config.find_config(name) == two
    with pytest.raises(FileNotFoundError, match="no config 'mmbeit-two_in1k'.*; did you mean Mmbeit-Two_in1k?"):
        config.find_config('mmbeit-two_in1k')
    for name in ('three', 'no-config'):
        with pytest.raises(FileNotFoundError):
            config.find_config(name)
    (tmp_path / 'metafile.yml').write_text('Models:\n')
    assert config.find_config('one') == tmp_path / 'configs' / 'beit' / 'one.py'


def test_models_of_the_metafile_have_configs():
    for name, path in config.model_configs().items():
        assert path.is_file(), name
