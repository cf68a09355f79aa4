"""The tool, from a checkpoint to the table, the picture and the file, and in one line what is wrong with its input."""

import json
import re
import runpy
import shlex

import numpy as np
import pytest
from PIL import Image

import mmbeit
from mmbeit.engine.config import find_config
from mmbeit.resources import resource_root

ROOT = resource_root()
QUICK = ('--epochs', '3', '--num-workers', '0', '--device', 'cpu')


@pytest.fixture(scope='module')
def main():
    return runpy.run_path(str(ROOT / 'tools' / 'probe.py'))['main']


@pytest.fixture
def run(main, data, tmp_path, monkeypatch):
    """Run the tool in an empty folder, on the random images unless it is told others; give its results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('MMBEIT_TRACEBACK', raising=False)

    def call(*args, train=data / 'train', val=data / 'val'):
        main([*QUICK, *map(str, args), '--train', str(train), '--val', str(val), '--out', 'out'])
        return json.loads((tmp_path / 'out' / 'results.json').read_text())

    return call


def test_a_finetuned_model_with_every_probe(run, finetune_config, finetuned, tmp_path, capsys):
    results = run(finetune_config, finetuned / 'epoch_3.pth', '--kind', 'linear', 'knn', 'attentive')
    assert set(results['measured']) == {'linear', 'knn', 'attentive'}
    assert results['num_train'] == 24 and results['num_val'] == 12 and results['num_classes'] == 6
    assert results['data'] == dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        size=[32, 32],
        crop=32 / 36,
        interpolation='bicubic',
    )
    linear = results['measured']['linear']
    assert linear['blocks'] == [0, 1] and results['measured']['attentive']['blocks'] == [linear['best']]
    out = capsys.readouterr().out
    assert 'tiny_finetune, weights: epoch_3' in out
    for one in results['measured'].values():
        assert f'block {one["best"]}' in out
        assert all(f'{value:.1f}' in out for value in one['val'])
    assert '24 images of 6 classes to train on; 6 of them, held out' in out
    assert np.array(Image.open(tmp_path / 'out' / 'blocks.png')).std() > 10


def test_a_pretrained_model_twice(run, pretrain_config, pretrained, tmp_path, capsys):
    first = run(pretrain_config, pretrained / 'epoch_3.pth')
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / 'work_dirs').rglob('*.safetensors')}
    assert len(shards) == 2
    assert run(pretrain_config, pretrained / 'epoch_3.pth') == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / 'work_dirs').rglob('*.safetensors')} == shards
    assert run(pretrain_config, pretrained / 'epoch_1.pth')['measured'] != first['measured']


def test_digits_with_weights_as_they_are_drawn(run, tmp_path):
    pytest.importorskip('sklearn')
    digits = runpy.run_path(str(ROOT / 'tools' / 'dataset_converters' / 'digits.py'))
    digits['write_digits'](tmp_path / 'digits')
    images = dict(train=tmp_path / 'digits' / 'train', val=tmp_path / 'digits' / 'val')
    model = 'beit_beit-mini-p4_1xb64-amp-coslr-90e_digits'
    results = run(model, 'none', **images)
    linear = '--kind', 'linear'
    assert results['num_train'] == 1437 and results['num_val'] == 360
    for one in results['measured'].values():
        assert one['val'][one['best']] > 40, 'even then better than chance'
    again = run(model, 'none', *linear, **images)
    assert again['measured']['linear'] == results['measured']['linear'], 'the seed is of the weights, too'
    labels = '--train-ann-file', tmp_path / 'digits' / 'labelled_0.txt', '--held-out', '0.5'
    few = run(model, 'none', *linear, *labels, **images)
    assert few['num_train'] == 50 and few['num_held_out'] == 20
    accuracies = [max(r['measured']['linear']['val']) for r in (results, few)]
    assert accuracies[0] > accuracies[1] > 10


def test_options_reach_what_they_are_for(run, finetune_config, finetuned, tmp_path):
    options = '--kind', 'attentive', '--block', '0', '--rates', '1e-3', '--size', '32', '40', '--seed', '5'
    results = run(finetune_config, finetuned / 'epoch_3.pth', *options)
    assert results['data']['size'] == [32, 40] and results['seed'] == 5
    assert results['measured']['attentive']['blocks'] == [0]
    assert results['measured']['attentive']['settings'] == [1e-3]
    options = '--kind', 'knn', '--k', '2', '3', '--dtype', 'float32', '--cfg-options', 'data_preprocessor.mean=[1,2,3]'
    results = run(finetune_config, finetuned / 'epoch_3.pth', *options)
    assert results['data']['mean'] == [1, 2, 3]
    assert results['measured']['knn']['settings'] == [2, 3]
    kept = [json.loads(path.read_text()) for path in (tmp_path / 'work_dirs').rglob('features.json')]
    assert {(one['dtype'], one['features']) for one in kept} == {
        ('float16', 'pooled'),
        ('float16', 'patches0'),
        ('float32', 'pooled'),
    }


def test_commands_of_the_documentation_are_understood():
    parse = runpy.run_path(str(ROOT / 'tools' / 'probe.py'))['parse_args']
    text = (ROOT / 'docs' / 'probes.md').read_text() + (ROOT / 'README.md').read_text()
    commands = re.findall(r'python tools/probe\.py ((?:.*\\\n)*.*)', text)
    assert len(commands) == 3
    for command in commands:
        args = parse(shlex.split(command.replace('\\\n', ' ')))
        assert args.model == 'MODEL' or find_config(args.model)


def test_example_of_the_documentation_runs(finetune_config, finetuned, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'photos').symlink_to(data)
    code = re.search(r'```python\n(.*?)```', (ROOT / 'docs' / 'probes.md').read_text(), re.DOTALL)[1]
    names = dict(model=mmbeit.get_model(finetune_config, finetuned / 'epoch_3.pth'))
    exec(code, names)
    assert names['probed']['linear'].best in (0, 1)


@pytest.fixture
def refused(run, capsys):
    def call(*args, **kwargs):
        with pytest.raises(SystemExit) as end:
            run(*args, **kwargs)
        assert end.value.code == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert 'error: ' in line and len(line) < 600
        return line

    return call


def test_mistakes_are_one_line(refused, finetune_config, finetuned, data, tmp_path):
    model = finetune_config, finetuned / 'epoch_3.pth'
    assert 'no such folder: nowhere' in refused(*model, val='nowhere')
    (tmp_path / 'empty').mkdir()
    assert 'no images in ' in refused(*model, train=tmp_path / 'empty')
    other = tmp_path / 'other' / 'class_x'
    other.mkdir(parents=True)
    Image.new('RGB', (40, 40)).save(other / '1.png')
    line = refused(*model, val=other.parent)
    assert '1 of its 1 classes for itself' in line and 'has no image of class_x' in line
    assert 'are both ' in refused(*model, val=data / 'train')
    assert 'the attentive probe needs a block' in refused(*model, '--kind', 'attentive')
    assert 'block 2 is not one of the 2 blocks' in refused(*model, '--kind', 'attentive', '--block', '2')
    assert 'not a whole number of patches' in refused(*model, '--size', '33')
    assert 'epochs (0) is not 1 or more' in refused(*model, '--epochs', '0')
    assert 'is not above 0 and below 1' in refused(*model, '--held-out', '1')
    assert 'no such checkpoint' in refused(finetune_config, 'none.pth')
    assert "no config 'nothing'" in refused('nothing')
    assert "unknown key 'modle.x'" in refused(*model, '--cfg-options', 'modle.x=1')
    assert 'no weights are published' in refused(finetune_config)
    assert '--size takes one or two numbers' in refused(*model, '--size', '1', '2', '3')


def test_a_model_without_our_backbone(refused, tmp_path):
    config = tmp_path / 'resnet.py'
    config.write_text(
        "default_scope = 'mmpretrain'\n"
        'data_preprocessor = dict(mean=[0.0] * 3, std=[1.0] * 3)\n'
        "model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18))\n"
    )
    assert 'ImageClassifier has no backbone of type mmbeit.BEiT' in refused(config, 'none')


def test_stopping_is_no_traceback(run, finetune_config, finetuned, capsys, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmbeit.probing.run.cached_features', stop)
    with pytest.raises(SystemExit) as end:
        run(finetune_config, finetuned / 'epoch_3.pth')
    assert end.value.code == 130
    assert capsys.readouterr().err.endswith('stopped; the same command goes on with the features that there are\n')
