"""Models by name, here and through mmpretrain."""

import mmengine
import pytest
import torch
from builders import TINY, randomize, tiny_classifier
from mmengine.config import Config
from processes import run

import mmbeit
from mmbeit.apis import index
from mmbeit.apis.data import DataConfig
from mmbeit.apis.model import data_config_of
from mmbeit.apis.weights import WeightsError
from mmbeit.checkpoint.formats import from_ours
from mmbeit.checkpoint.load import CheckpointError
from mmbeit.resources import resource_root

FINETUNED = 'beit-base-p16_beit-pre_8xb128-coslr-100e_in1k'
PRETRAINED = 'beit_beit-base-p16_8xb256-amp-coslr-300e_in1k'
CONFIG = resource_root() / index.models()[FINETUNED]['Config']
SMALL = dict(
    backbone=dict(arch=dict(_delete_=True, **TINY), img_size=32, patch_size=8),
    head=dict(num_classes=7, in_channels=24),
)


@pytest.fixture
def weights(tmp_path):
    model = tiny_classifier()
    torch.save(
        dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=list('abcdefg')))), tmp_path / 'a.pth'
    )
    return tmp_path / 'a.pth', model


# By these names mmpretrain's `inference_model` finds its inferencers.
TASKS_WITH_TEXTS = (
    *('Visual Question Answering', 'NLVR', 'Image Caption', 'Image-To-Text Retrieval', 'Text-To-Image Retrieval'),
)


def test_names():
    assert mmbeit.list_models() == sorted(index.models())
    assert {FINETUNED, PRETRAINED, 'beit-base-p16_beit-in21k-pre_3rdparty_in1k'} <= set(mmbeit.list_models('beit'))
    assert mmbeit.list_models('*large*512px') == [
        'beit-large-p16_beit-in21k-pre_3rdparty_in1k-512px',
        'beit-large-p16_beit-in21k-pre_8xb32-accu2-coslr-30e_in1k-512px',
        'beit-large-p16_beit-pre_8xb64-accu2-coslr-50e_in1k-512px',
    ]
    classifiers = mmbeit.list_models(task='image classification')
    others = mmbeit.list_models(task='null')
    assert PRETRAINED in others and FINETUNED in classifiers
    segmentors = mmbeit.list_models(task='semantic segmentation')
    with_texts = {task: mmbeit.list_models(task=task) for task in TASKS_WITH_TEXTS}
    named = {name for names in with_texts.values() for name in names}
    assert all(with_texts.values()) and all(name.startswith('beit3-') for name in named)
    known = {*classifiers, *segmentors, *others, *named}
    assert sorted(known) == mmbeit.list_models()
    assert all('ade20k' in name for name in segmentors) and len(segmentors) > 8
    assert mmbeit.list_models('BEiT-', exclude_patterns=['*large', '*linear']) == [
        name for name in mmbeit.list_models('beit-') if 'large' not in name and 'linear' not in name
    ]
    assert mmbeit.list_models('resnet') == mmbeit.list_models(task='Image Retrieval') == []


def test_model_of_a_name_with_overrides():
    model = mmbeit.get_model(FINETUNED, **SMALL)
    assert not model.training and model.backbone.embed_dims == 24 and model.head.num_classes == 7
    assert model.extract_feat(torch.rand(2, 3, 32, 32))[-1].shape == (2, 24)
    upper = mmbeit.get_model(FINETUNED.upper(), **SMALL)
    assert upper._config.model == model._config.model


def test_pretraining_model_as_the_seed_uses_it():
    model = mmbeit.get_model(PRETRAINED, backbone=SMALL['backbone'])
    (features,) = model(torch.rand(1, 3, 32, 32))
    assert features.shape == (1, 17, 24) and type(model.extract_feat(torch.rand(1, 3, 32, 32))) is tuple


@pytest.mark.parametrize('kind', ['config', 'path', 'name of a config'])
def test_model_of_a_config(kind):
    model = dict(config=Config.fromfile(CONFIG), path=CONFIG)
    name = 'beit-mini-p4_1xb50-coslr-200e_digits'
    built = mmbeit.get_model(model.get(kind, name), **({} if kind.startswith('name') else SMALL))
    assert built.head.num_classes == (10 if kind.startswith('name') else 7)
    if kind == 'config':
        assert model['config'].model.backbone.arch == 'base', 'it was changed'


def test_weights_are_loaded(weights):
    path, reference = weights
    x = torch.randn(2, 3, 32, 32)
    for pretrained in (path, str(path)):
        model = mmbeit.get_model(FINETUNED, pretrained, 'cpu', **SMALL)
        torch.testing.assert_close(model.extract_feat(x), reference.extract_feat(x))
        assert model._dataset_meta['classes'] == list('abcdefg')
    cfg = Config.fromfile(CONFIG)
    cfg.load_from = str(path)
    torch.testing.assert_close(mmbeit.get_model(cfg, True, **SMALL).extract_feat(x), reference.extract_feat(x))


def test_weights_that_are_loaded_are_not_drawn_before(weights):
    state = torch.get_rng_state()
    model = mmbeit.get_model(FINETUNED, weights[0], **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(dict(model.state_dict()), dict(weights[1].state_dict()), rtol=0, atol=0)
    torch.nn.Linear(3, 3)  # others are drawn, then as before
    assert not torch.equal(torch.get_rng_state(), state)


def test_what_a_file_does_not_say_is_drawn(weights):
    """A classifier of other classes, and the tokenizer of a pretraining model, which is no part of its state dict."""
    other_head = {**SMALL, 'head': dict(num_classes=5, in_channels=24)}
    torch.manual_seed(0)
    expected = mmbeit.get_model(FINETUNED, **other_head)
    torch.manual_seed(0)
    model = mmbeit.get_model(FINETUNED, weights[0], **other_head)
    assert torch.equal(model.head.fc.weight, expected.head.fc.weight)
    assert torch.equal(model.backbone.fc_norm.weight, weights[1].backbone.fc_norm.weight)

    torch.manual_seed(0)
    expected = mmbeit.get_model(PRETRAINED, backbone=SMALL['backbone'])
    torch.save(expected.state_dict(), weights[0])
    torch.manual_seed(0)
    model = mmbeit.get_model(PRETRAINED, weights[0], backbone=SMALL['backbone'])
    tokenizers = [dict(m.target_generator.named_parameters()) for m in (model, expected)]
    assert tokenizers[0]
    torch.testing.assert_close(*tokenizers, rtol=0, atol=0)


def test_published_weights_bring_their_statistics(weights, monkeypatch, tmp_path):
    """The recipe of this name has ImageNet's, mmpretrain's weights of this name do not."""
    path, reference = weights
    entry = index.models()[FINETUNED]
    published = tmp_path / entry['Weights'].rpartition('/')[2]
    published.write_bytes(path.read_bytes())
    monkeypatch.setenv('MMBEIT_CACHE', str(tmp_path))
    half = (127.5,) * 3
    for pretrained in (True, published, entry['Weights'], entry['Mirrors'][0]):
        model = mmbeit.get_model(FINETUNED, pretrained, **SMALL)
        assert torch.equal(model.head.fc.weight, reference.head.fc.weight)
        assert tuple(model.data_preprocessor.mean.flatten().tolist()) == model.data_config.mean == half
    model = mmbeit.get_model(FINETUNED, path, **SMALL)
    assert model.data_config.mean == (123.675, 116.28, 103.53)
    torch.testing.assert_close(model.data_preprocessor.mean.flatten(), torch.tensor(model.data_config.mean))


def test_classes_of_imagenet():
    classes = mmbeit.get_model(FINETUNED, **SMALL)._dataset_meta['classes']
    assert len(classes) == 1000


def test_data_config_of_models_from_elsewhere():
    model = tiny_classifier()
    with pytest.raises(ValueError, match='set model.data_config'):
        data_config_of(model)
    model.data_config = DataConfig([0] * 3, [1] * 3, 32)
    assert data_config_of(model) is model.data_config
    model = mmbeit.get_model(FINETUNED, **SMALL)
    del model.data_config
    assert data_config_of(model).size == (224, 224)


def test_errors_name_what_was_meant(tmp_path):
    with pytest.raises(FileNotFoundError, match=f'did you mean .*{FINETUNED}'):
        mmbeit.get_model('beit-base-p16_beit-pre_8xb128-coslr-100e_in2k')
    with pytest.raises(FileNotFoundError, match='no such checkpoint: .*none.pth'):
        mmbeit.get_model(FINETUNED, tmp_path / 'none.pth', **SMALL)
    with pytest.raises(TypeError, match='model is a int'):
        mmbeit.get_model(3)
    name = 'beit-base-p16_beit-in21k-pre_8xb64-coslr-30e_in1k'
    with pytest.raises(WeightsError, match=f'no weights are published for {name}: .*3rdparty'):
        mmbeit.get_model(name, True, **SMALL)
    with pytest.raises(AttributeError, match='list_model'):
        mmbeit.list_model  # noqa: B018


def test_a_dead_host_gives_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv('MMBEIT_CACHE', str(tmp_path))
    monkeypatch.setenv('MMBEIT_OFFLINE', '1')
    with pytest.raises(WeightsError, match='downloads are switched off') as error:
        mmbeit.get_model(FINETUNED, True, **SMALL)
    assert '\n' not in str(error.value)


def test_names_of_the_package():
    assert set(mmbeit.__all__) <= set(dir(mmbeit))
    for name in mmbeit.__all__:
        assert getattr(mmbeit, name) is not None


# mmpretrain's own functions, in fresh processes.

IMPORTS = {
    'mmbeit first': 'import mmbeit; import mmpretrain',
    'mmpretrain first': 'import mmpretrain; import mmbeit',
    'mmpretrain used first': 'import mmpretrain; mmpretrain.list_models(); import mmbeit',
    'mmbeit used first': 'import mmbeit; mmbeit.list_models(); import mmpretrain',
}


@pytest.mark.parametrize('imports', IMPORTS.values(), ids=IMPORTS)
def test_mmpretrain_knows_the_names_whatever_is_imported_first(imports):
    code = f"""
        {imports}
        from mmpretrain import get_model, list_models
        names = list_models()
        assert set(mmbeit.list_models()) <= set(names) and 'resnet50_8xb32_in1k' in names
        assert len(names) == len(set(names))
        assert '{FINETUNED}' in list_models('beit-base', task='Image Classification')
        model = get_model('{FINETUNED}', **{SMALL!r})
        print(type(model.backbone).__module__, model.data_preprocessor.mean.flatten().tolist())
    """
    assert run(code).splitlines()[-1] == 'mmbeit.models.backbones.beit [127.5, 127.5, 127.5]'


def test_importing_mmbeit_imports_neither_mmpretrain_nor_its_own_models():
    code = """
        import sys, mmbeit
        print([name for name in ('mmpretrain', 'mmcv', 'mmbeit.models', 'mmbeit.apis') if name in sys.modules])
    """
    assert run(code) == '[]'


def test_example_of_the_seed(tmp_path, weights):
    """`inference_model` of mmpretrain, letter by letter; the weights are in the cache, of a smaller model."""
    path, reference = weights
    name = index.models()[FINETUNED]['Weights'].rpartition('/')[2]
    (tmp_path / name).write_bytes(path.read_bytes())
    (tmp_path / 'demo').mkdir()
    from PIL import Image

    Image.new('RGB', (320, 240), (200, 30, 60)).save(tmp_path / 'demo' / 'bird.JPEG')
    code = f"""
        import os
        os.chdir({str(tmp_path)!r})
        os.environ['MMBEIT_CACHE'] = {str(tmp_path)!r}
        import mmbeit
        from mmbeit.apis import index
        from mmengine.config import Config
        read = Config.fromfile
        def smaller(path):
            cfg = read(path)
            cfg.merge_from_dict(dict(model={SMALL!r}))
            cfg.test_dataloader.dataset.pipeline[1].scale = cfg.test_dataloader.dataset.pipeline[2].crop_size = 32
            return cfg
        Config.fromfile = smaller
        from mmpretrain import inference_model
        predict = inference_model('beit-base-p16_beit-pre_8xb128-coslr-100e_in1k', 'demo/bird.JPEG')
        print(predict['pred_class'])
        print(predict['pred_score'])
    """
    pred_class, pred_score = run(code).splitlines()[-2:]
    pixels = (torch.tensor([200, 30, 60]) - 127.5) / 127.5
    scores = reference.head(reference.extract_feat(pixels.view(1, 3, 1, 1).expand(1, 3, 32, 32))).softmax(1)[0]
    assert pred_class.endswith('abcdefg'[scores.argmax()])  # after mmpretrain's bar
    assert float(pred_score) == pytest.approx(float(scores.max()), abs=0.02)


def test_metafile_is_what_mim_and_mmpretrain_can_read():
    entries = mmengine.load(resource_root() / 'metafile.yml')['Models']
    for entry in entries:
        assert isinstance(entry.get('Weights', ''), str), 'they know one address only'
        assert isinstance(entry.get('Mirrors', []), list) and entry.get('Weights') not in entry.get('Mirrors', [])


@pytest.mark.parametrize('layout', ['official', 'mmpretrain'])
def test_weights_of_other_layouts_load_by_path(layout, tmp_path):
    cfg = Config(
        dict(
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='mmbeit.BEiT', arch=TINY, img_size=32, patch_size=8),
                head=dict(type='LinearClsHead', num_classes=5, in_channels=24),
            )
        )
    )
    model = randomize(mmbeit.get_model(cfg))
    torch.save({'state_dict': from_ours(model.state_dict(), layout)[0]}, tmp_path / 'theirs.pth')
    loaded = mmbeit.get_model(cfg, pretrained=tmp_path / 'theirs.pth')
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def test_a_tokenizer_by_name_with_official_weights(tmp_path):
    name = 'vqkd_base-1x768x12-clip_3rdparty_in1k'
    small = dict(
        tokenizer=dict(arch=dict(_delete_=True, **TINY), img_size=32, patch_size=8, num_codes=11, code_dim=4),
        teacher=None,
        target_dims=6,
    )
    model = randomize(mmbeit.get_model(name, **small))
    model.tokenizer.quantizer.codebook.normal_()
    torch.save({'model': from_ours(model.state_dict(), 'official')[0]}, tmp_path / 'weights.pth')
    loaded, images = mmbeit.get_model(name, tmp_path / 'weights.pth', **small), torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.tokenizer(images).ids, model.tokenizer(images).ids)
    assert torch.equal(loaded(images), model(images))
    with pytest.raises(CheckpointError, match='weights.pth: the weights do not fit this backbone: .*missing: blocks.4'):
        deeper = dict(small['tokenizer'], arch={'_delete_': True, **TINY, 'num_layers': 5})
        mmbeit.get_model(name, tmp_path / 'weights.pth', **{**small, 'tokenizer': deeper})
