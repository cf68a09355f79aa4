"""Inferencers against direct calls of the model, and against mmpretrain's."""

import random
import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from builders import TINY, tiny_beit, tiny_classifier, tiny_mim
from builders_beit3 import tiny_beit3
from PIL import Image
from torch import nn

import mmbeit
from mmbeit import DataConfig, FeatureExtractor, ImageClassificationInferencer, MaskedImageModelingInferencer
from mmbeit.apis.images import ImageError
from mmbeit.apis.reconstruction import reconstruct

DATA = DataConfig((100, 110, 120), (50, 55, 60), 32)
CLASSES = list('abcdefg')


def picture(seed=0, size=(50, 40)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8))


def classifier():
    model = tiny_classifier()
    model.data_config = DATA
    return model


def mim(**options):
    model = tiny_mim(**options)
    model.data_config = DATA
    return model


@pytest.fixture
def folder(tmp_path):
    """Nine pictures of several modes and sizes; the second and the last cannot be read."""
    modes = ['RGB', None, 'L', 'RGBA', 'P', 'LA', '1', 'RGB', None]
    for i, mode in enumerate(modes):
        path = tmp_path / f'{i}.png'
        if mode is None:
            path.write_bytes(b'broken')
        else:
            picture(i, (40 + 5 * i, 60 - 5 * i)).convert(mode).save(path)
    return tmp_path


# ---- what all of them do ----


@pytest.mark.filterwarnings('ignore:cannot read image')
@pytest.mark.parametrize('batch_size', [1, 2, 4, 100])
@pytest.mark.parametrize('kind', ['classes', 'features', 'tokens'])
def test_batches_give_what_single_pictures_give(folder, batch_size, kind):
    infer = {
        'classes': lambda: ImageClassificationInferencer(classifier()),
        'features': lambda: FeatureExtractor(classifier()),
        'tokens': lambda: MaskedImageModelingInferencer(mim()),
    }[kind]()
    mask = np.arange(16) % 3 == 0
    options = dict(mask=mask) if kind == 'tokens' else {}
    paths = sorted(folder.iterdir())
    results = infer(paths, batch_size=batch_size, **options)
    assert [result is None for result in results] == [i in (1, 8) for i in range(9)]
    for path, result in zip(paths, results, strict=True):
        if result is not None:
            single = infer(str(path), **options)
            assert list(single) == list(result)
            for key, value in single.items():
                torch.testing.assert_close(torch.as_tensor(value), torch.as_tensor(result[key]), msg=key)
    by_path = infer(folder, **options)
    assert list(by_path) == [str(path) for path in paths] and by_path[str(paths[1])] is None


def test_broken_pictures_are_reported_and_the_others_go_on(folder):
    infer = ImageClassificationInferencer(classifier())
    with pytest.warns(UserWarning, match=r'cannot read image .*[18].png: .*; its result is None') as told:
        infer(folder)
    assert len([w for w in told if 'cannot read' in str(w.message)]) == 2
    with pytest.raises(ImageError, match='cannot read image .*1.png'):
        infer(folder / '1.png')
    with pytest.warns(UserWarning, match='its result is None'):
        assert infer([b'']) == [None]
    assert infer([]) == []


def test_long_lists_have_a_bar_on_a_terminal_and_nowhere_else(monkeypatch, capfd):
    infer = ImageClassificationInferencer(classifier())
    infer([picture()] * 16)
    assert capfd.readouterr() == ('', '')
    monkeypatch.setenv('FORCE_COLOR', '1')  # rich takes it for a terminal
    infer([picture()] * 15)
    assert '15/15' not in capfd.readouterr().err
    infer([picture()] * 16)
    assert '16/16' in capfd.readouterr().err


def test_options_of_a_model_that_is_built():
    with pytest.raises(TypeError, match='backbone: a model that is built cannot be changed'):
        ImageClassificationInferencer(classifier(), backbone=dict())
    with pytest.raises(ValueError, match='set model.data_config'):
        ImageClassificationInferencer(tiny_classifier())
    other = DataConfig((0,) * 3, (255,) * 3, 32)
    assert ImageClassificationInferencer(classifier(), data=other).data == other


def test_model_is_left_as_it_was():
    model = classifier().train()
    infer = FeatureExtractor(model)
    first = infer(picture())
    assert not first['maps'].requires_grad
    assert torch.equal(infer(picture())['maps'], first['maps']), 'it is in eval mode'


# ---- classes ----


def test_classes_against_the_model():
    model = classifier()
    images = [picture(0), picture(1)]
    scores = model.head(model.extract_feat(DATA(images))).softmax(1)
    results = ImageClassificationInferencer(model, classes=CLASSES)(images)
    for expected, result in zip(scores, results, strict=True):
        assert set(result) == {'pred_scores', 'pred_label', 'pred_score', 'pred_class'}
        np.testing.assert_allclose(result['pred_scores'], expected.detach(), rtol=1e-5)
        assert result['pred_label'] == int(expected.argmax()) and result['pred_class'] == CLASSES[result['pred_label']]
        assert result['pred_score'] == float(result['pred_scores'].max())
    assert 'pred_class' not in ImageClassificationInferencer(model)(images[0])
    assert 'pred_class' not in ImageClassificationInferencer(model, classes=['a'])(images[0]), 'not its classes'


@pytest.mark.parametrize(
    'name',
    ['beit-base-p16_beit-in21k-pre_8xb64-coslr-30e_in1k', 'beit-base-p16_beit-pre_8xb128-coslr-100e_in1k'],
)
def test_classes_against_mmpretrain(name, tmp_path):
    from mmpretrain import ImageClassificationInferencer as Theirs

    small = dict(backbone=dict(arch=dict(_delete_=True, **TINY), patch_size=32), head=dict(in_channels=24))
    model = mmbeit.get_model(name, **small)
    paths = []
    for i, mode in enumerate(['RGB', 'L', 'RGBA', 'P']):
        paths.append(str(tmp_path / f'{i}.png'))
        picture(i, (300 + 50 * i, 400 - 80 * i)).convert(mode).save(paths[-1])
    theirs, ours = Theirs(model)(paths), mmbeit.inference_model(model, paths)
    arrays = [np.array(Image.open(path).convert('RGB'))[..., ::-1] for path in paths]
    for a, b, c in zip(theirs, ours, mmbeit.inference_model(model, arrays), strict=True):
        np.testing.assert_allclose(a['pred_scores'], b['pred_scores'], rtol=1e-4, atol=1e-6)
        assert {k: v for k, v in a.items() if k in ('pred_label', 'pred_class')}.items() <= b.items()
        np.testing.assert_array_equal(b['pred_scores'], c['pred_scores'])


# ---- features ----


@pytest.mark.parametrize('make', [classifier, mim])
@pytest.mark.parametrize('size', [None, 64, (40, 24)])
def test_features_against_the_backbone(make, size):
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)
    model = make()
    image = picture()
    result = FeatureExtractor(model)(image, layers=[0, -1, 2], size=size)
    x = (DATA if size is None else DATA.at_size(size))([image])
    h, w = x.shape[2] // 8, x.shape[3] // 8
    shared = dict(rel_pos_bias='per_block' if make is classifier else 'shared', mask_token=make is mim)
    every = tiny_beit(out_indices=range(4), out_type='raw', **shared)
    every.load_state_dict(model.backbone.state_dict(), strict=False)
    tokens = [layer[0] for layer in every(x)]
    assert result['maps'].shape == (3, 24, h, w)
    for i, layer in enumerate((0, 3, 2)):
        close(result['cls_tokens'][i], tokens[layer][0])
        close(result['maps'][i].flatten(1).T, tokens[layer][1:])
    close(result['cls_token'], tokens[-1][0])
    pooled = model.extract_feat(x)[-1][0] if make is classifier else tokens[-1][1:].mean(0)
    close(result['pooled'], pooled)


def test_features_of_a_bare_backbone_and_of_another():
    backbone = tiny_beit(final_norm=True, out_type='cls_token')
    result = FeatureExtractor(backbone, data=DATA)(picture())
    torch.testing.assert_close(result['cls_token'], backbone(DATA([picture()]))[-1][0])
    assert result['maps'].shape == (1, 24, 4, 4)
    backbone = tiny_beit3(out_type='avg_featmap')
    result = FeatureExtractor(backbone, data=DATA)(picture())
    torch.testing.assert_close(result['pooled'], backbone(DATA([picture()]))[-1][0])
    with pytest.raises(TypeError, match='Linear has no backbone of type mmbeit.BEiT'):
        FeatureExtractor(nn.Linear(2, 2), data=DATA)(picture())


def test_bad_layers_and_sizes():
    extract = FeatureExtractor(classifier())
    with pytest.raises(ValueError, match=r'layers \[4\] do not fit the 4 blocks'):
        extract(picture(), layers=4)
    with pytest.raises(ValueError, match=r'size \(36, 36\) is not a whole number of patches of 8 pixels'):
        extract(picture(), size=36)


# ---- tokens ----


def test_tokens_against_the_model():
    model = mim()
    images = [picture(0), picture(1)]
    masks = torch.arange(32).view(2, 4, 4) % 5 == 0
    results = MaskedImageModelingInferencer(model)(images, mask=masks)
    logits = model.predict_tokens(DATA(images), masks.flatten(1))
    torch.testing.assert_close(torch.cat([result['logits'] for result in results]), logits)
    for result, mask in zip(results, masks, strict=True):
        assert torch.equal(result['mask'], mask) and set(result) == {'mask', 'logits', 'pred_ids'}
        assert torch.equal(result['pred_ids'], result['logits'].argmax(1)) and len(result['pred_ids']) == mask.sum()


def test_masks_may_be_given_in_every_shape():
    infer = MaskedImageModelingInferencer(mim())
    mask = np.arange(16) % 3 == 0
    expected = infer(picture(), mask=mask)
    for same in (mask.reshape(4, 4), mask.astype(np.uint8), mask.tolist(), torch.tensor(mask), mask[None]):
        torch.testing.assert_close(infer(picture(), mask=same)['logits'], expected['logits'])
    for wrong, count in ((mask[:15], 1), (mask[None, :15], 1), (np.stack([mask, mask]), 3), (True, 1)):
        with pytest.raises(ValueError, match=r'a mask of \(.*\) for a grid of \(4, 4\) patches: expected one for all'):
            infer([picture()] * count, mask=wrong)


def test_drawn_masks_depend_on_the_seed_and_the_place_alone():
    infer = MaskedImageModelingInferencer(mim(img_size=64))
    random.seed(5)
    state, numpy_state = random.getstate(), np.random.get_state()[1].tolist()
    images = [picture(i) for i in range(5)]
    masks = [result['mask'] for result in infer(images, batch_size=2, seed=3)]
    assert random.getstate() == state and np.random.get_state()[1].tolist() == numpy_state
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        again = infer([images[0], b'broken', *images[2:]], batch_size=5, seed=3)
    assert all(torch.equal(a, b['mask']) for i, (a, b) in enumerate(zip(masks, again, strict=True)) if i != 1)
    assert torch.equal(infer(images[0], seed=4)['mask'], masks[1])
    assert not torch.equal(masks[0], masks[1])
    assert all(0 < mask.sum() <= round(64 * 75 / 196) for mask in masks)
    assert infer(images[0], num_masked=5)['mask'].sum() <= 5


def test_masks_of_a_recipe():
    name = 'beit_beit-mini-p4_1xb64-amp-coslr-90e_digits'
    options = dict(target_generator=None, head=dict(num_codes=11))
    infer = MaskedImageModelingInferencer(name, pretrained=False, device='cpu', **options)
    mask = infer(picture())['mask']
    assert mask.shape == (4, 4) and 0 < mask.sum() <= 6


def test_picture_where_the_tokenizer_has_a_decoder():
    tokenizer = dict(num_codes=16, width=8, num_groups=2, num_blocks=1, decoder=True, init_cfg=None)
    name = 'beit_beit-mini-p4_1xb64-amp-coslr-90e_digits'
    model = mmbeit.get_model(name, backbone=dict(img_size=16), target_generator={**tokenizer, 'num_groups': 3})
    images = [picture(0), picture(1)]
    results = MaskedImageModelingInferencer(model)(images, seed=1)
    data = model.data_config
    target = DataConfig((0,) * 3, (255,) * 3, 16, data.crop, 'lanczos')(images)
    masks = torch.stack([result['mask'] for result in results])
    expected = reconstruct(model, data(images), target, masks)
    for i, result in enumerate(results):
        assert torch.equal(result['reconstruction'].predicted_ids, expected.predicted_ids[i])
        assert torch.equal(result['pred_ids'], expected.predicted_ids[i][masks[i]])
        assert result['picture'].size == (16, 16)
        pixels = torch.tensor(np.array(result['picture'])).permute(2, 0, 1) / 255
        torch.testing.assert_close(pixels, expected.from_prediction[i], rtol=0, atol=0.5 / 255 + 1e-6)


# ---- in one call ----


def test_one_call_chooses_the_inferencer(tmp_path):
    image = picture()
    assert mmbeit.inference_model(classifier(), image, classes=CLASSES)['pred_class'] in CLASSES
    assert len(mmbeit.inference_model(classifier(), [image] * 3, batch_size=2)) == 3
    mask = np.arange(16) == 3
    assert mmbeit.inference_model(mim(), image, mask=mask)['logits'].shape == (1, 11)
    small = dict(backbone=dict(arch=dict(_delete_=True, **TINY), patch_size=32), head=dict(in_channels=24))
    name = 'beit-base-p16_beit-in21k-pre_3rdparty_in1k'
    result = mmbeit.inference_model(name, image, pretrained=False, device='cpu', **small)
    assert re.search('[a-z]', result['pred_class'])
    with pytest.raises(TypeError, match='no inferencer fits BEiT: .* FeatureExtractor is for all'):
        mmbeit.inference_model(tiny_beit(), image)
    with pytest.raises(ImageError):
        mmbeit.inference_model(classifier(), tmp_path / 'none.png')


def test_seed_example_for_mim_runs_without_the_tokenizer(monkeypatch):
    monkeypatch.setenv('MMBEIT_OFFLINE', '1')
    infer = MaskedImageModelingInferencer(
        'beit_beit-base-p16_8xb256-amp-coslr-300e_in1k',
        pretrained=False,
        device='cpu',
        backbone=dict(arch=dict(_delete_=True, **TINY)),
        target_generator=None,
        head=dict(num_codes=11),
    )
    result = infer(picture(0, (300, 260)))
    assert result['mask'].shape == (14, 14) and 60 <= result['mask'].sum() <= 75
    assert result['logits'].shape == (int(result['mask'].sum()), 11)
