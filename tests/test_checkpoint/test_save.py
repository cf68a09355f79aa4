"""The tool that converts, and what other projects make of its files."""

import importlib.util
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from builders import TINY, logits_of, tiny_classifier, tiny_mim
from safetensors.torch import load_file, save_file
from test_checkpoint import official, peers

from mmbeit.checkpoint import save
from mmbeit.checkpoint.formats import from_ours
from mmbeit.checkpoint.load import CheckpointError
from mmbeit.checkpoint.weights import load_into, load_state

ROOT = Path(__file__).parents[2]
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('convert_checkpoint', ROOT / 'tools' / 'convert_checkpoint.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *args: module.main([str(arg) for arg in args])


@pytest.fixture
def classifier():
    return tiny_classifier()


@pytest.fixture
def ours(classifier, tmp_path):
    torch.save({'state_dict': classifier.state_dict(), 'optimizer': {'state': torch.ones(1000)}}, tmp_path / 'ours.pth')
    return tmp_path / 'ours.pth'


@pytest.mark.parametrize('end', ['.pth', '.safetensors'])
@pytest.mark.parametrize('format', ['mmbeit', 'official', 'hf', 'timm', 'mmpretrain'])
def test_there_and_back(tool, classifier, ours, tmp_path, format, end, capsys):
    there = tmp_path / 'there' if format == 'hf' else tmp_path / f'there{end}'
    tool(ours, there, '--to', format)
    tool(there, tmp_path / 'back.pth', '--to', 'mmbeit')
    assert f'classifier, mmbeit to {format}' in capsys.readouterr().out
    content = torch.load(tmp_path / 'back.pth')
    assert content.keys() == {'state_dict'}
    state = {key: value for key, value in classifier.state_dict().items() if format == 'mmbeit' or 'grid' not in key}
    assert content['state_dict'].keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in content['state_dict'].items())
    assert not list(tmp_path.glob('.*'))


@pytest.mark.parametrize('pooling', ['mean', 'class token'])
def test_transformers_opens_the_folder_of_a_classifier(tool, tmp_path, pooling):
    import transformers

    kwargs = {} if pooling == 'mean' else dict(out_type='cls_token', final_norm=True)
    model = tiny_classifier(**kwargs)
    torch.save(model.state_dict(), tmp_path / 'ours.pth')
    tool(tmp_path / 'ours.pth', tmp_path / 'hf', '--to', 'hf', '--mean', '0.1', '0.2', '0.3')
    theirs, report = transformers.BeitForImageClassification.from_pretrained(tmp_path / 'hf', output_loading_info=True)
    assert not any(report.values()), report
    images = torch.randn(2, 3, 32, 32)
    close(theirs.eval()(images).logits, logits_of(model, images))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / 'hf')
    assert type(processor).__name__.startswith('BeitImageProcessor')
    assert list(processor.image_mean) == [0.1, 0.2, 0.3]
    pixels = processor(torch.randint(256, (3, 40, 50), dtype=torch.uint8), return_tensors='pt')['pixel_values']
    assert pixels.shape == (1, 3, 32, 32)


def test_transformers_opens_the_folder_of_a_pretraining_model(tool, tmp_path):
    import transformers

    model = tiny_mim()
    torch.save({'model': from_ours(model.state_dict(), 'official')[0]}, tmp_path / 'official.pth')
    tool(tmp_path / 'official.pth', tmp_path / 'hf', '--to', 'hf')
    theirs, report = transformers.BeitForMaskedImageModeling.from_pretrained(tmp_path / 'hf', output_loading_info=True)
    assert not any(report.values()), report
    images, mask = torch.randn(2, 3, 32, 32), torch.rand(2, 16) < 0.4
    close(theirs.eval()(images, bool_masked_pos=mask).logits[mask], model.predict_tokens(images, mask))


def test_transformers_opens_the_folder_of_a_segmentor(tool, tmp_path, capsys):
    import transformers

    pytest.importorskip('mmseg.models')
    torch.save({'state_dict': peers.tiny_mmseg().state_dict()}, tmp_path / 'mmseg.pth')
    tool(tmp_path / 'mmseg.pth', tmp_path / 'hf', '--to', 'hf')
    assert 'takes each feature map two blocks too early' in capsys.readouterr().out
    _, report = transformers.BeitForSemanticSegmentation.from_pretrained(tmp_path / 'hf', output_loading_info=True)
    assert not any(report.values()), report
    tool(tmp_path / 'hf', tmp_path / 'back.pth', '--to', 'mmseg')
    before, after = (torch.load(tmp_path / f'{name}.pth')['state_dict'] for name in ('mmseg', 'back'))
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_timm_loads_the_file(tool, classifier, ours, tmp_path):
    import timm

    tool(ours, tmp_path / 'timm.pth', '--to', 'timm')
    theirs = timm.create_model(
        'beit_base_patch16_224',
        embed_dim=TINY['embed_dims'],
        depth=TINY['num_layers'],
        num_heads=TINY['num_heads'],
        img_size=32,
        patch_size=8,
        num_classes=7,
        checkpoint_path=str(tmp_path / 'timm.pth'),
    )
    images = torch.randn(2, 3, 32, 32)
    close(theirs.eval()(images), logits_of(classifier, images))


def test_publishing_names_the_file_by_its_hash(tool, ours, tmp_path):
    import hashlib

    tool(ours, tmp_path / 'beit.pth', '--to', 'official', '--publish')
    (path,) = tmp_path.glob('beit-*.pth')
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f'beit-{digest[:8]}.pth' and torch.load(path).keys() == {'model'}
    tool(ours, tmp_path / 'folder', '--to', 'hf', '--publish')
    (folder,) = tmp_path.glob('folder-*')
    assert re.fullmatch(r'folder-[0-9a-f]{8}', folder.name) and load_file(folder / 'model.safetensors')


def test_what_cannot_be_read_back_is_not_kept(tool, classifier, ours, tmp_path, monkeypatch):
    whole = save._write

    def break_one(state, path, target):
        whole({**state, 'cls_token': state['cls_token'] + 1}, path, target)

    (tmp_path / 'there.pth').write_text('before')
    monkeypatch.setattr(save, '_write', break_one)
    with pytest.raises(CheckpointError, match='differs from what it was made from in backbone.cls_token'):
        save.save_state(classifier.state_dict(), 'classifier', tmp_path / 'there.pth', 'official')
    assert (tmp_path / 'there.pth').read_text() == 'before'
    assert {path.name for path in tmp_path.iterdir()} == {'there.pth', 'ours.pth'}


def test_tokenizers_are_converted(tool, tmp_path):
    torch.save({'model': official.random(official.vqkd(dim=48, depth=2))}, tmp_path / 'vqkd.pth')
    tool(tmp_path / 'vqkd.pth', tmp_path / 'mm.pth', '--to', 'mmpretrain')
    tool(tmp_path / 'vqkd.pth', tmp_path / 'ours.pth', '--to', 'mmbeit')
    assert load_state(tmp_path / 'ours.pth')[1].kind == 'vqkd'
    assert load_state(tmp_path / 'mm.pth')[1].kind == 'vqkd_encoder'
    torch.save(official.random(official.dvae_encoder(8, 16)), tmp_path / 'dvae.pth')
    tool(tmp_path / 'dvae.pth', tmp_path / 'flava', '--to', 'hf')
    import transformers

    theirs, report = transformers.FlavaImageCodebook.from_pretrained(tmp_path / 'flava', output_loading_info=True)
    assert not any(report.values()) and theirs.vocab_size == 16


def bad_inputs(tmp_path):
    state, _ = from_ours(tiny_classifier().state_dict(), 'official')
    torch.save({'model': {key: value for key, value in state.items() if key != 'norm2'}}, tmp_path / 'good.pth')
    state.pop('blocks.2.mlp.fc1.bias')
    torch.save({'model': state}, tmp_path / 'less.pth')
    (tmp_path / 'empty.pth').write_bytes(b'')
    save_file({'layer1.0.conv1.weight': torch.ones(2)}, tmp_path / 'resnet.safetensors')
    (tmp_path / 'folder').mkdir()
    mim, _ = from_ours(tiny_mim().state_dict(), 'official')
    torch.save({'module': mim}, tmp_path / 'mim.pth')
    yield ['missing.pth', 'out.pth', '--to', 'hf'], 'no such checkpoint'
    yield ['empty.pth', 'out.pth', '--to', 'timm'], 'is empty'
    yield ['resnet.safetensors', 'out.pth', '--to', 'timm'], 'not recognised as a model of the BEiT family'
    yield ['less.pth', 'out.pth', '--to', 'timm'], '1 missing: blocks.2.mlp.fc1.bias'
    yield ['mim.pth', 'out.pth', '--to', 'timm'], "timm has no model of kind 'mim'"
    yield ['good.pth', 'out.pth', '--to', 'mmseg'], "mmseg has no model of kind 'classifier'"
    yield ['good.pth', 'out.pth', '--to', 'timm', '--from', 'hf'], 'not recognised as a model of the BEiT family (hf)'
    yield ['good.pth', 'out.pth', '--to', 'timm', '--ema'], 'holds no average of the weights'
    yield ['good.pth', 'folder', '--to', 'hf'], 'exists already'
    yield ['good.pth', 'folder', '--to', 'timm'], 'is a folder'
    yield ['good.pth', 'nowhere/out.pth', '--to', 'timm'], 'no such folder'


def test_bad_input_gives_one_line_and_status_2(tool, tmp_path, monkeypatch, capsys):
    cases = list(bad_inputs(tmp_path))
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    for args, said in cases:
        with pytest.raises(SystemExit) as stop:
            tool(*args)
        out, err = capsys.readouterr()
        assert stop.value.code == 2 and out == '' and err.count('\n') == 1 and said in err, (args, err)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_tool_runs_as_a_script(ours, tmp_path):
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), *filter(None, sys.path[1:])])}
    args = [ROOT / 'tools' / 'convert_checkpoint.py', ours, tmp_path / 'timm.pth', '--to', 'timm']
    done = subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, env=env, check=True)
    assert 'timm.pth: classifier, mmbeit to timm' in done.stdout
    other = tiny_classifier()
    load_into(other, tmp_path / 'timm.pth')
