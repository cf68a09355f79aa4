"""mim finds the tools and the configs of an editable install. It is optional: `pip install -e .[mim]`."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import distributions

import pytest

from mmbeit.apis import index

pytest.importorskip('mim', reason='needs onedl-mim, the extra `mim`')

NAME = 'beit-base-p16_beit-in21k-pre_3rdparty_in1k'
# mim searches the whole checkout, an environment inside of it included, where mmpretrain has the 300-epoch recipe, too.
CONFIG = 'beit_beit-base-p16_8xb256-amp-coslr-800e_in1k.py'


@pytest.fixture(scope='module')
def run_mim(root, command, tmp_path_factory):
    """A way to run mim outside of the checkout, and the folder that it runs in."""
    # A checkout on the path has an egg-info besides, which does not say where it comes from.
    sources = [json.loads(dist.read_text('direct_url.json') or '{}') for dist in distributions(name='mmbeit')]
    if not any(s.get('url') == root.as_uri() and s.get('dir_info', {}).get('editable') for s in sources):
        pytest.skip('needs an editable install of this checkout')
    folder = tmp_path_factory.mktemp('mim')
    return partial(command, 'mim', cwd=folder, check=False, PYTHONPATH=''), folder


@pytest.fixture(scope='module')
def mim(root, finetune_config, finetuned, vqkd_config, run_mim):
    """Output of each command, and the folder that it wrote to. They run side by side."""
    run, folder = run_mim
    short = ('--cfg-options', 'train_cfg.max_epochs=1')
    nowhere = ('--cfg-options', f'train_dataloader.dataset.data_root={folder}/none')
    commands = dict(
        list=('list',),
        path=('train', 'mmbeit', finetune_config, '--gpus', 0, '--work-dir', folder / 'path', *short),
        name=('train', 'mmbeit', CONFIG, '--gpus', 0, '--work-dir', folder / 'name', *nowhere),
        test=(
            *('test', 'mmbeit', finetune_config, '--checkpoint', finetuned / 'epoch_3.pth', '--gpus', 0),
            *('--work-dir', folder / 'test', '--out', folder / 'metrics.json'),
        ),
        vqkd=('train', 'mmbeit', vqkd_config, '--gpus', 0, '--work-dir', folder / 'vqkd', *short),
        search=('search', 'mmbeit', '--config', NAME, '--json', folder / 'found.json'),
        run=('run', 'mmbeit', 'train', finetune_config, '--work-dir', folder / 'run', *short),
    )
    with ThreadPoolExecutor(2) as pool:
        runs = {name: pool.submit(run, *args) for name, args in commands.items()}
    return {name: run.result() for name, run in runs.items()}, folder


@pytest.mark.parametrize('name', ['path', 'run', 'vqkd'])
def test_train(mim, name):
    runs, folder = mim
    assert runs[name].returncode == 0, runs[name].stdout[-2000:] + runs[name].stderr[-2000:]
    assert (folder / name / 'epoch_1.pth').is_file()


def test_train_by_name(mim, root):
    """mim looks for a file of that name, ending included; the run ends where it misses ImageNet."""
    runs, folder = mim
    assert str(root / 'configs' / 'beit' / CONFIG) in runs['name'].stdout
    assert f'error: no such folder: {folder}/none/train' in runs['name'].stderr


def test_test(mim):
    runs, folder = mim
    assert runs['test'].returncode == 0, runs['test'].stdout[-2000:] + runs['test'].stderr[-2000:]
    assert json.loads((folder / 'metrics.json').read_text()).keys() == {'accuracy/top1', 'accuracy/top5'}


def test_list(mim):
    assert any(line.startswith('mmbeit') for line in mim[0]['list'].stdout.splitlines())


def test_search_finds_a_model_with_its_weights_and_accuracy(mim):
    """`mim download` takes the weights from there; it needs a network."""
    runs, folder = mim
    assert runs['search'].returncode == 0
    found = {field: values[NAME] for field, values in json.loads((folder / 'found.json').read_text()).items()}
    entry = index.models()[NAME]
    assert found['weight'] == entry['Weights'] and found['config'] == entry['Config']
    assert found['imagenet-1k/top_1_accuracy'] == entry['Results'][0]['Metrics']['Top 1 Accuracy']


def test_segmentation_is_trained_validated_resumed_and_evaluated(segmentation_config, run_mim, log):
    pytest.importorskip('mmseg', reason='needs onedl-mmsegmentation, the extra `seg`')
    run, folder = run_mim
    work_dir, out = folder / 'segmentation', folder / 'segmentation.json'
    training = ('train', 'mmbeit', segmentation_config, '--gpus', 0, '--work-dir', work_dir)
    for args in (
        (*training, '--cfg-options', 'train_cfg.max_iters=3'),
        (*training, '--resume'),
        (
            *('test', 'mmbeit', segmentation_config, '--checkpoint', work_dir / 'iter_6.pth', '--gpus', 0),
            *('--work-dir', folder / 'evaluation', '--out', out),
        ),
    ):
        done = run(*args)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert [line['step'] for line in log(work_dir) if 'loss' in line] == [1, 2, 3, 4, 5, 6]
    validated = [line for line in log(work_dir) if 'mIoU' in line]
    assert len(validated) == 2
    assert json.loads(out.read_text()) == {key: validated[-1][key] for key in ('aAcc', 'mIoU', 'mAcc')}
