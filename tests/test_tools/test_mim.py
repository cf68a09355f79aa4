"""mim finds the tools and the configs of an editable install. It is optional: `pip install -e .[mim]`."""

import json
from importlib.metadata import distribution

import pytest

pytest.importorskip('mim', reason='needs onedl-mim, the extra `mim`')


@pytest.fixture(scope='module')
def mim(root, command, tmp_path_factory):
    """Run mim outside of the checkout, whose install it has to find by itself."""
    source = json.loads(distribution('mmbeit').read_text('direct_url.json') or '{}')
    if not source.get('dir_info', {}).get('editable') or source['url'] != root.as_uri():
        pytest.skip('needs an editable install of this checkout: mim does not find the package of a wheel')
    elsewhere = tmp_path_factory.mktemp('mim')
    return lambda *args, **kwargs: command('mim', *args, **{'cwd': elsewhere, 'PYTHONPATH': '', **kwargs})


def test_train_by_path(mim, finetune_config, tmp_path, log):
    mim(
        'train',
        'mmbeit',
        finetune_config,
        '--gpus',
        0,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        'train_cfg.max_epochs=1',
    )
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_train_by_name(mim, tmp_path):
    """mim looks for a file of that name, ending included; the run ends where it misses ImageNet."""
    name = 'beit_beit-base-p16_8xb256-amp-coslr-300e_in1k.py'
    options = ('--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}/none')
    done = mim('train', 'mmbeit', name, '--gpus', 0, '--work-dir', tmp_path, *options, check=False)
    assert f'configs/beit/{name}' in done.stdout
    assert f'error: no such folder: {tmp_path}/none/train' in done.stderr


def test_test(mim, finetune_config, finetuned, tmp_path):
    checkpoint, out = finetuned / 'epoch_3.pth', tmp_path / 'metrics.json'
    options = ('--gpus', 0, '--work-dir', tmp_path, '--out', out)
    mim('test', 'mmbeit', finetune_config, '--checkpoint', checkpoint, *options)
    assert json.loads(out.read_text()).keys() == {'accuracy/top1', 'accuracy/top5'}


def test_run(mim, finetune_config, tmp_path):
    mim('run', 'mmbeit', 'train', finetune_config, '--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_epochs=1')
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_list(mim):
    assert any(line.startswith('mmbeit') for line in mim('list').stdout.splitlines())
