"""Files of every form, at every place where a path is given."""

import argparse
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from builders import NUM_CLASSES, TINY, logits_of, randomize, tiny_backbone_cfg, tiny_beit, tiny_classifier, tiny_mim
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader, load_checkpoint
from safetensors.torch import save_file
from test_checkpoint import official, peers

from mmbeit.checkpoint.formats import from_ours
from mmbeit.checkpoint.load import CheckpointError, read_weights
from mmbeit.checkpoint.weights import load_into, load_state

close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


@pytest.fixture
def classifier():
    return tiny_classifier()


def states(model):
    return {key: value for key, value in model.state_dict().items() if not key.endswith('.grid')}


def same(model, other):
    return all(torch.equal(value, states(other)[key]) for key, value in states(model).items())


def write(state, path, form):
    """One of the forms in which weights are published."""
    match form:
        case 'model':
            torch.save(
                {'model': state, 'optimizer': {'x': 1}, 'args': argparse.Namespace(lr=0.1)}, path / 'weights.pth'
            )
        case 'module':
            torch.save({'module': state}, path / 'weights.bin')
        case 'legacy':
            torch.save({'model': state}, path / 'weights.pt', _use_new_zipfile_serialization=False)
        case 'safetensors':
            save_file(state, path / 'weights.safetensors')
        case 'folder':
            (path / 'weights').mkdir()
            save_file(state, path / 'weights' / 'model.safetensors')
        case 'bin folder':
            (path / 'weights').mkdir()
            torch.save(state, path / 'weights' / 'pytorch_model.bin')
        case 'shards':
            (path / 'weights').mkdir()
            keys = list(state)
            halves = {'model-1-of-2.safetensors': keys[::2], 'model-2-of-2.safetensors': keys[1::2]}
            for name, part in halves.items():
                save_file({key: state[key] for key in part}, path / 'weights' / name)
            places = {key: name for name, part in halves.items() for key in part}
            index = path / 'weights' / 'model.safetensors.index.json'
            index.write_text(json.dumps({'metadata': {}, 'weight_map': places}))
    return next(path.glob('weights*'))


def load_pretrained(model, path):
    model.backbone.init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    model.backbone.init_weights()


FORMS = ['model', 'module', 'legacy', 'safetensors', 'folder', 'bin folder', 'shards']


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('format', ['official', 'hf', 'timm', 'mmpretrain', 'mmbeit'])
def test_every_form_of_every_format_reaches_the_model(classifier, format, form, tmp_path):
    path = write(from_ours(classifier.state_dict(), format)[0], tmp_path, form)
    for load in (load_checkpoint, load_into):
        other = tiny_classifier()
        load(other, str(path))
        assert same(other, classifier)


def test_files_of_mmpretrain_still_load_into_its_own_models(tmp_path):
    arch = dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)
    cfg = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='BEiTViT', arch=arch, img_size=32, patch_size=8, use_abs_pos_emb=False),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=24),
    )
    theirs, other = randomize(MODELS.build(cfg)), MODELS.build(cfg)
    torch.save({'state_dict': theirs.state_dict(), 'meta': {}}, tmp_path / 'theirs.pth')
    load_checkpoint(other, str(tmp_path / 'theirs.pth'), strict=True)
    assert same(other, theirs)


@pytest.mark.parametrize(
    ('format', 'v2'), [('official', False), ('hf', False), ('mmbeit', False), ('official', True), ('mmbeit', True)]
)
def test_fine_tuning_starts_from_the_pretrained_backbone_of_any_format(format, v2, tmp_path):
    mim = tiny_mim(v2=v2)
    path = write(from_ours(mim.state_dict(), format)[0], tmp_path, 'model' if format != 'hf' else 'folder')
    init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    for size in (32, 48):
        backbone = MODELS.build(tiny_backbone_cfg(init_cfg=init_cfg, img_size=size))
        backbone.init_weights()
        for i in range(4):
            assert torch.equal(backbone.blocks[i].mlp.fc1.weight, mim.backbone.blocks[i].mlp.fc1.weight)
            table = backbone.rel_pos_bias[i]((4, 4))
            assert size != 32 or torch.equal(table, mim.backbone.rel_pos_bias[0]())  # one for each block
        assert backbone.fc_norm.weight.eq(1).all()


@pytest.mark.parametrize(
    ('format', 'shared'),
    [('official', True), ('official', False), ('mmpretrain', True), ('mmbeit', True), ('mmbeit', False)],
)
def test_pretraining_of_v2_goes_on_from_the_weights_of_any_format(format, shared, tmp_path):
    model, other = (tiny_mim(v2=True, shared=shared) for _ in range(2))
    path = write(from_ours(model.state_dict(), format)[0], tmp_path, 'model')
    assert load_into(other, path).format.kind == 'mim_v2'
    assert same(other, model)


def test_size_of_the_image_may_change_between_formats(classifier, tmp_path):
    path = write(from_ours(classifier.state_dict(), 'hf')[0], tmp_path, 'folder')
    larger = tiny_classifier(img_size=48)
    load_into(larger, path)
    images = torch.randn(2, 3, 48, 48)
    close(logits_of(larger, images), logits_of(classifier, images))


def test_a_head_of_other_classes_is_dropped_with_one_line(classifier, tmp_path):
    path = write(from_ours(classifier.state_dict(), 'official')[0], tmp_path, 'model')
    other = tiny_classifier()
    other.head.fc = torch.nn.Linear(24, 3)
    head, lines = other.head.fc.weight.clone(), []
    report = load_into(other, path, log=lines.append)
    assert report.dropped == ['head'] and report.format.name == 'official'
    assert torch.equal(other.head.fc.weight, head)
    assert torch.equal(other.backbone.cls_token, classifier.backbone.cls_token)
    assert lines == [
        f'{path}: head is not loaded, its head.fc.weight is ({NUM_CLASSES}, 24), that of the model (3, 24)'
    ]


def test_the_head_of_pretraining_is_no_classifier(tmp_path):
    path = write(from_ours(tiny_mim().state_dict(), 'official')[0], tmp_path, 'model')
    model = tiny_classifier()
    model.head.fc = torch.nn.Linear(24, 11)  # as many classes as codes
    head, lines = model.head.fc.weight.clone(), []
    assert load_into(model, path, log=lines.append).dropped == ['head']
    assert torch.equal(model.head.fc.weight, head) and len(lines) == 1


MISFITS = {
    'fewer blocks': (dict(arch={**TINY, 'num_layers': 2}), 'unexpected: blocks.2.attn.proj.bias'),
    'more blocks': (dict(arch={**TINY, 'num_layers': 5}), 'missing: blocks.4.attn.proj.bias'),
    'wider': (dict(arch={**TINY, 'embed_dims': 48}), r'blocks.0.attn.proj.bias is \(24,\), expected \(48,\)'),
    'more heads': (dict(arch={**TINY, 'num_heads': 4}), r'rel_pos_bias.0.table is \(52, 3\), expected \(52, 4\)'),
    'no layer scale': (dict(layer_scale=None), '8 unexpected: blocks.0.scale1.gamma'),
    'smaller patches': (dict(patch_size=4), r'patch_embed.proj.weight is \(24, 3, 8, 8\), expected \(24, 3, 4, 4\)'),
}


@pytest.mark.parametrize(('kwargs', 'said'), MISFITS.values(), ids=MISFITS)
@pytest.mark.parametrize('format', ['timm', 'mmpretrain', 'mmbeit'])
@pytest.mark.parametrize('load', [load_into, load_checkpoint, load_pretrained])
def test_a_backbone_that_does_not_fit_is_refused(classifier, tmp_path, load, format, kwargs, said):
    """mmengine's functions would warn and train from scratch."""
    path = write(from_ours(classifier.state_dict(), format)[0], tmp_path, 'model')
    cfg = tiny_backbone_cfg(**{**kwargs, 'arch': dict(kwargs.get('arch', TINY))})
    head = dict(type='LinearClsHead', num_classes=NUM_CLASSES, in_channels=cfg['arch']['embed_dims'])
    model = MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=cfg, head=head))
    with pytest.raises(CheckpointError, match=f'the weights do not fit this backbone: .*{said}') as error:
        load(model, str(path))
    assert '\n' not in str(error.value)
    assert load is load_checkpoint or str(path) in str(error.value)


@pytest.mark.parametrize('format', ['official', 'timm', 'hf', 'mmpretrain', 'mmbeit'])
def test_a_backbone_by_itself_takes_any_names(classifier, format, tmp_path):
    """From a file, and what another project's model gives for its `state_dict()`."""
    state, _ = from_ours(classifier.state_dict(), format)
    expected = states(classifier.backbone)
    for load in (
        lambda backbone: load_into(backbone, write(state, tmp_path, 'model')),
        lambda backbone: backbone.load_state_dict(state),
    ):
        backbone = tiny_beit()
        if format == 'mmbeit' and 'cls_token' not in state:  # with the prefix these are the names of another model
            load_into(backbone, write(state, tmp_path, 'model'))
        else:
            load(backbone)
        assert all(torch.equal(value, expected[key]) for key, value in states(backbone).items())


def test_an_adapter_for_a_backbone_is_no_backbone():
    """Nothing is asked of weights that do not claim to be a whole one."""
    backbone = tiny_beit()
    state = {'blocks.0.attn.qkv.lora_down.weight': torch.ones(2, 24)}
    assert backbone.load_state_dict(state, strict=False).unexpected_keys == list(state)


def test_a_file_without_a_backbone_is_refused(tmp_path):
    path = write({'head.fc.weight': torch.ones(NUM_CLASSES, 24)}, tmp_path, 'model')
    with pytest.raises(CheckpointError, match='it has no backbone for this ImageClassifier, it holds head.fc.weight'):
        load_into(tiny_classifier(), path)


def test_what_somebody_built_around_a_backbone_loads(classifier, tmp_path):
    """Under the names of mmbeit and of mmpretrain."""
    for format in ('mmbeit', 'mmpretrain'):
        state, _ = from_ours(classifier.state_dict(), format)
        path = write({**state, 'neck.own.weight': torch.ones(3)}, tmp_path, 'model')
        model, lines = tiny_classifier(), []
        report = load_into(model, path, log=lines.append)
        assert same(model, classifier) and report.dropped == ['neck']
        assert lines == [f'{path}: neck is not loaded, the model has none']
        model.neck = torch.nn.Module()
        model.neck.own = torch.nn.LayerNorm(3, bias=False, elementwise_affine=True)
        torch.nn.init.zeros_(model.neck.own.weight)
        assert load_into(model, path).dropped == [] and model.neck.own.weight.eq(1).all()


def test_the_average_of_an_official_file_is_loaded_on_request(classifier, tmp_path):
    state, _ = from_ours(classifier.state_dict(), 'official')
    average = {key: value if value.dtype == torch.long else value + 1 for key, value in state.items()}
    torch.save({'model': state, 'model_ema': average}, tmp_path / 'weights.pth')
    plain, _ = load_state(tmp_path / 'weights.pth')
    ema, _ = load_state(tmp_path / 'weights.pth', ema=True)
    assert all(torch.equal(ema[key], plain[key] + 1) for key in plain)


# ---- mmengine's loader leaves the rest alone ----


def test_files_of_others_pass_unchanged(tmp_path):
    import timm

    models = [
        timm.create_model('resnet18', num_classes=3),
        timm.create_model('vit_tiny_patch16_224', num_classes=3),
        MODELS.build(dict(type='mmpretrain.VisionTransformer', arch='deit-t')),
    ]
    for i, model in enumerate(models):
        torch.save({'state_dict': model.state_dict(), 'meta': {'epoch': 3}}, tmp_path / f'{i}.pth')
        content = CheckpointLoader.load_checkpoint(str(tmp_path / f'{i}.pth'), 'cpu')
        assert content['meta'] == {'epoch': 3}
        assert list(content['state_dict']) == list(model.state_dict())


def test_what_a_runner_goes_on_from_passes_unchanged(tmp_path):
    state = peers.tiny_mm_classifier().state_dict()
    torch.save({'state_dict': state, 'message_hub': {}, 'optimizer': {}}, tmp_path / 'epoch_1.pth')
    content = CheckpointLoader.load_checkpoint(str(tmp_path / 'epoch_1.pth'), 'cpu')
    assert content.keys() == {'state_dict', 'message_hub', 'optimizer'}
    assert list(content['state_dict']) == list(state)


def test_a_model_of_openmmlab_that_contains_a_beit_passes_unchanged(tmp_path):
    state = {**peers.tiny_mm_classifier().state_dict(), 'neck.own.weight': torch.ones(2)}
    torch.save({'state_dict': state}, tmp_path / 'other.pth')
    assert CheckpointLoader.load_checkpoint(str(tmp_path / 'other.pth'))['state_dict'].keys() == state.keys()


def test_a_file_of_the_family_with_a_key_too_few_is_refused_at_once(classifier, tmp_path):
    state, _ = from_ours(classifier.state_dict(), 'official')
    del state['blocks.1.norm2.bias']
    path = write(state, tmp_path, 'model')
    for load in (load_checkpoint, load_into):
        with pytest.raises(CheckpointError) as error:
            load(tiny_classifier(), str(path))
        assert "official layout of kind 'classifier'" in str(error.value)
        assert '1 missing: blocks.1.norm2.bias' in str(error.value) and '\n' not in str(error.value)


# ---- what cannot be read ----


def damaged(tmp_path, kind):
    folder = tmp_path / 'folder'
    folder.mkdir()
    path = folder / 'model.safetensors'
    match kind:
        case 'empty folder':
            pass
        case 'empty':
            path.write_bytes(b'')
        case 'text':
            path.write_text('<html>404</html>')
        case 'truncated':
            save_file({'a': torch.randn(50, 50)}, path)
            path.write_bytes(path.read_bytes()[:-100])
        case 'no index':
            (folder / 'model.safetensors.index.json').write_text('[1, 2]')
        case 'outside':
            index = {'weight_map': {'a': '../model.safetensors'}}
            (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
        case 'shard missing':
            index = {'weight_map': {'a': 'model-1-of-1.safetensors'}}
            (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
        case 'key missing':
            save_file({'b': torch.ones(1)}, folder / 'model-1-of-1.safetensors')
            index = {'weight_map': {'a': 'model-1-of-1.safetensors'}}
            (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
    return folder


KINDS = ['empty folder', 'empty', 'text', 'truncated', 'no index', 'outside', 'shard missing', 'key missing']


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('read', [read_weights, load_state, CheckpointLoader.load_checkpoint])
def test_a_damaged_folder_gives_one_line_that_names_it(tmp_path, kind, read):
    folder = damaged(tmp_path, kind)
    with pytest.raises((CheckpointError, FileNotFoundError)) as error:
        read(str(folder))
    assert str(folder) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('read', [load_state, CheckpointLoader.load_checkpoint])
def test_hub_without_a_network_says_what_to_do(monkeypatch, read, tmp_path):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise ConnectionError('no route to host. More of this\nand that')

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', offline)
    with pytest.raises(CheckpointError) as error:
        read('hf://microsoft/beit-base-patch16-224')
    assert str(error.value) == (
        'cannot download hf://microsoft/beit-base-patch16-224: no route to host; or download it yourself and give the '
        'path of the folder instead of hf://microsoft/beit-base-patch16-224'
    )
    with pytest.raises(CheckpointError, match='not of the form hf://owner/name'):
        read('hf://../etc')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(CheckpointError, match='pip install huggingface_hub'):
        read('hf://owner/name')


def test_hub_gives_the_folder_of_its_cache(monkeypatch, classifier, tmp_path):
    import huggingface_hub

    folder = write(from_ours(classifier.state_dict(), 'hf')[0], tmp_path, 'bin folder')
    asked = []

    def download(name, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', download)
    other = tiny_classifier()
    load_into(other, 'hf://owner/name@v1')
    assert same(other, classifier)
    assert asked == [('owner/name', 'v1', ['*.safetensors', '*.json'])]  # both are in the one folder of this test


# ---- a file of the usual size ----

MEASURE = """
import re, sys, time
from pathlib import Path
import torch
import mmbeit
import mmpretrain.models
def peak():  # in bytes; `ru_maxrss` would begin at that of the parent
    return 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])
name, path = sys.argv[1:]
mmbeit.get_model('beit-mini-p4_1xb50-coslr-200e_digits')  # imports
before = peak()
start = time.perf_counter()
model = mmbeit.get_model(name, pretrained=path)
seconds = time.perf_counter() - start
memory = peak() - before
start = time.perf_counter()
torch.load(path)  # a copy of the file in memory, and a copy of that in a model that was drawn
again = mmbeit.get_model(name)
again.load_state_dict(model.state_dict())
print(seconds, time.perf_counter() - start, memory)
"""


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='measures memory by /proc')
def test_a_base_size_file_loads_fast_and_in_little_memory(tmp_path):
    path = tmp_path / 'beit_base_patch16_224_pt22k_ft22kto1k.pth'
    torch.save({'model': official.random(official.classifier())}, path)
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(Path(__file__).parents[2]), *sys.path[1:]])}
    command = [sys.executable, '-W', 'ignore', '-c', MEASURE, 'beit-base-p16_beit-in21k-pre_3rdparty_in1k', str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    seconds, plainly, memory = map(float, done.stdout.split()[-3:])
    print(f'{seconds:.2f} s, plainly {plainly:.2f} s; {memory / path.stat().st_size:.2f} of the size of the file')
    assert seconds < 3 * plainly and memory < 2.2 * path.stat().st_size
