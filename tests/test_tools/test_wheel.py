"""The wheel, built from the source distribution, holds what it should, and works without a checkout."""

import itertools
import os
import shutil
import stat
import zipfile
from pathlib import Path

import pytest

CONFIG = 'beit_beit-base-p16_8xb256-amp-coslr-300e_in1k'


@pytest.fixture(scope='module')
def wheel(tmp_path_factory, root, python):
    """A wheel made from a source distribution made from a copy of this checkout."""
    folder = tmp_path_factory.mktemp('wheel')
    copy = folder / 'copy'
    for name in ('mmbeit', 'configs', 'tools', 'tests'):
        shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns('__pycache__'))
    for path in root.iterdir():
        if path.is_file() and path.name != '.git':
            shutil.copy(path, copy)
    python('setup.py', '-q', 'sdist', '--dist-dir', folder / 'dist', cwd=copy, PYTHONPATH='')
    (archive,) = (folder / 'dist').glob('*.tar.gz')
    python(
        *('-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', folder, archive),
        **dict(cwd=folder, PYTHONPATH='', PIP_DISABLE_PIP_VERSION_CHECK='1'),
    )
    (path,) = folder.glob('*.whl')
    return path


def test_wheel_content(wheel, root):
    with zipfile.ZipFile(wheel) as file:
        info = {entry.filename: entry for entry in file.infolist()}
    info = {name: entry for name, entry in info.items() if not name.endswith('/')}
    assert not any('test_' in name or '__pycache__' in name or '.pyc' in name for name in info)
    (metadata,) = {name.split('/')[0] for name in info} - {'mmbeit'}
    for base, folder in itertools.product(('mmbeit', metadata), ('configs', 'tools')):
        paths = [path for path in (root / folder).rglob('*') if path.is_file() and '__pycache__' not in path.parts]
        assert paths
        packed = {name for name in info if name.startswith(f'{base}/.mim/{folder}/')}
        assert packed == {f'{base}/.mim/{path.relative_to(root)}' for path in paths}
        for path in paths:
            mode = info[f'{base}/.mim/{path.relative_to(root)}'].external_attr >> 16
            assert bool(mode & stat.S_IXUSR) == os.access(path, os.X_OK), path
        assert {f'{base}/.mim/metafile.yml', f'{base}/.mim/model-index.yml'} <= info.keys()
    assert any(name.endswith('licenses/LICENSE') for name in info)
    assert metadata.endswith('.dist-info')
    code = {f'mmbeit/{path.relative_to(root / "mmbeit")}' for path in (root / 'mmbeit').rglob('*.py')}
    assert code <= info.keys()


@pytest.fixture(scope='module')
def installed(tmp_path_factory, wheel, python):
    """Run Python in a folder elsewhere, where only the wheel is found, not this checkout."""
    target = tmp_path_factory.mktemp('installed')
    python('-m', 'pip', 'install', '-q', '--no-deps', '--no-compile', '--target', target, wheel, cwd=target)
    elsewhere = tmp_path_factory.mktemp('elsewhere')

    def run(*args, **kwargs):
        return python(*args, **{'cwd': elsewhere, 'PYTHONPATH': target, **kwargs})

    (where,) = run('-c', 'import mmbeit; print(mmbeit.__file__)').stdout.split()
    assert where == str(target / 'mmbeit' / '__init__.py')
    return run


def test_tools_are_listed(installed):
    lines = installed('-m', 'mmbeit').stdout.splitlines()
    assert {'train', 'test', 'digits'} <= {line.split()[0] for line in lines if line.startswith('  ')}


def test_training_from_the_wheel(installed, data, tokenizer, tmp_path):
    """By name, with the recipe shrunk through options alone."""
    options = {
        'train_cfg': dict(max_epochs=1),
        'model.backbone': dict(arch='tiny', img_size=32, patch_size=8),
        'model.target_generator': dict(num_codes=16, width=8, num_groups=3, num_blocks=1),
        'model.target_generator.init_cfg': dict(checkpoint=tokenizer),
        'train_dataloader': dict(batch_size=24, num_workers=0, persistent_workers=False),
        'train_dataloader.dataset': dict(data_root=data),
        'train_dataloader.dataset.pipeline.4': dict(size=32, target_size=16),
        'train_dataloader.dataset.pipeline.5': dict(grid=4, num_masked=6, min_block=1),
    }
    options = [f'{part}.{key}={value}' for part, values in options.items() for key, value in values.items()]
    done = installed('-m', 'mmbeit', 'train', CONFIG, '--work-dir', tmp_path, '--cfg-options', *options)
    assert (tmp_path / 'epoch_1.pth').is_file()
    assert 'Traceback' not in done.stderr


def test_config_of_the_wheel_as_a_base(installed, tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = 'mmbeit::beit/{CONFIG}.py'\ntrain_cfg = dict(max_epochs=7)\n")
    code = 'import mmbeit, sys; from mmengine import Config; print(Config.fromfile(sys.argv[1]).train_cfg.max_epochs)'
    assert installed('-c', code, child).stdout.split() == ['7']


def test_mim_finds_the_tools_of_the_wheel(installed):
    pytest.importorskip('mim', reason='needs onedl-mim, the extra `mim`')
    code = "from mim.utils import get_installed_path; print(get_installed_path('mmbeit'))"
    folder = Path(installed('-c', code).stdout.strip(), '.mim')
    assert (folder / 'tools' / 'train.py').is_file()
    assert len(list(folder.rglob(f'{CONFIG}.py'))) == 1
