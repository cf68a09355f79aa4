"""Segmentation of pictures, against mmseg's own pipeline and model."""

import re

import numpy as np
import pytest
import torch
from builders import TINY
from mmengine.config import Config, ConfigDict
from PIL import Image

import mmbeit
from mmbeit import DataConfig, SegmentationInferencer
from mmbeit.apis.images import ImageError
from mmbeit.apis.segmentation import classes_at, draw, palette, slide, window_corners
from mmbeit.checkpoint.formats import from_ours

pytest.importorskip('mmseg.models')
from test_checkpoint.peers import randomize_norms, segmentor_cfg, tiny_segmentor  # noqa: E402

DATA = DataConfig((100, 110, 120), (50, 55, 60), 32, 1.0, 'bilinear')
CLASSES = list('abcdefg')
SLIDE = dict(mode='slide', crop_size=(32, 32), stride=(21, 21))


def picture(seed=0, size=(75, 50)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8))


def segmentor(**test_cfg):
    model = tiny_segmentor()
    model.test_cfg = ConfigDict(test_cfg)
    model.data_config = DATA
    model._dataset_meta = dict(classes=CLASSES)
    return model


@torch.no_grad()
def by_mmseg(model, image):
    """What mmseg's pipeline, preprocessor and model give for a file of that picture."""
    from mmcv.transforms import Compose
    from mmengine.registry import DefaultScope
    from mmseg.models import SegDataPreProcessor

    with DefaultScope.overwrite_default_scope('mmseg'):
        steps = [dict(type='Resize', scale=(128, 32), keep_ratio=True), dict(type='PackSegInputs')]
        bgr = np.asarray(image)[..., ::-1].copy()
        packed = Compose(steps)(dict(img=bgr, img_shape=bgr.shape[:2], ori_shape=bgr.shape[:2], img_path=''))
        data = SegDataPreProcessor(DATA.mean, DATA.std, bgr_to_rgb=True, test_cfg=dict(size_divisor=1))(
            dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']])
        )
        return model.predict(data['inputs'], data['data_samples'])[0].pred_sem_seg.data[0].numpy()


@pytest.mark.parametrize('test_cfg', [dict(mode='whole'), SLIDE], ids=['whole', 'slide'])
@pytest.mark.parametrize('size', [(75, 50), (40, 90), (300, 32), (20, 20), (32, 32)])
def test_classes_are_those_of_mmseg(test_cfg, size):
    model, image = segmentor(**test_cfg), picture(size=size)
    result = SegmentationInferencer(model)(image)
    expected = by_mmseg(model, image)
    assert result['pred_sem_seg'].shape == size[::-1]
    assert (result['pred_sem_seg'] == expected).mean() > 0.999  # of two equal logits either may be the largest
    assert len(np.unique(expected)) > 1


@pytest.mark.parametrize('at_once', [1, 2, 3, 100])
@torch.no_grad()
def test_windows_at_once_give_what_mmseg_gives_one_by_one(at_once):
    model, x = segmentor(**SLIDE), torch.randn(3, 61, 90)
    expected = model.slide_inference(x[None], [dict(ori_shape=(61, 90))])[0]
    torch.testing.assert_close(slide(model, x, (32, 32), (21, 21), at_once), expected, rtol=1e-5, atol=1e-5)


def test_windows_cover_a_side_and_end_at_its_border():
    assert window_corners(32, 32, 21) == [0]
    assert window_corners(20, 32, 21) == [0]
    assert window_corners(33, 32, 21) == [0, 1]
    assert window_corners(96, 32, 21) == [0, 21, 42, 63, 64]


def test_pictures_above_the_bound_slide():
    model = segmentor(mode='whole')
    sizes = []
    model.backbone.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape)))
    infer, image = SegmentationInferencer(model), picture(size=(64, 32))
    whole = infer(image, max_pixels=64 * 32)['pred_sem_seg']
    assert sizes == [(1, 3, 32, 64)]
    del sizes[:]
    windows = infer(image, max_pixels=32 * 32, windows_at_once=2)['pred_sem_seg']
    assert sizes == [(2, 3, 32, 32), (1, 3, 32, 32)]
    assert windows.shape == whole.shape and 0.2 < (windows == whole).mean() < 1
    for option in ('max_pixels', 'windows_at_once', 'size'):
        with pytest.raises(ValueError, match=rf'{option} \(0\) is not positive'):
            infer(image, **{option: 0})


def test_size_of_the_model_does_not_change_that_of_the_result():
    infer, image = SegmentationInferencer(segmentor(mode='whole')), picture(size=(64, 32))
    assert infer(image, size=48)['pred_sem_seg'].shape == (32, 64)
    assert not np.array_equal(infer(image, size=48)['pred_sem_seg'], infer(image)['pred_sem_seg'])


@pytest.mark.parametrize('classes', [2, 7, 40])
@pytest.mark.parametrize('align_corners', [False, True])
def test_few_classes_at_a_time_give_what_all_give(classes, align_corners):
    logits = torch.randn(classes, 5, 7)
    logits[1] = logits[0]  # ties go to the first
    whole = torch.nn.functional.interpolate(logits[None], (23, 17), mode='bilinear', align_corners=align_corners)
    assert torch.equal(classes_at(logits, (23, 17), align_corners), whole[0].argmax(dim=0))


def test_a_single_class_is_there_or_not():
    logits = torch.tensor([[[-1.0, 2.0]]])
    assert classes_at(logits, (1, 2)).tolist() == [[0, 1]]


def test_areas_add_up_and_are_named():
    result = SegmentationInferencer(segmentor(mode='whole'))(picture(size=(64, 32)))
    assert list(result['areas'].values()) == sorted(result['areas'].values(), reverse=True)
    assert sum(result['areas'].values()) == pytest.approx(1)
    for name, share in result['areas'].items():
        assert share == pytest.approx((result['pred_sem_seg'] == CLASSES.index(name)).mean())
    numbered = SegmentationInferencer(segmentor(mode='whole'), classes=['too', 'few'])(picture(size=(64, 32)))
    assert set(numbered['areas']) <= set('0123456')


def test_a_folder_goes_on_after_a_broken_picture_and_is_drawn(tmp_path):
    for i in range(3):
        picture(i, (64, 32)).save(tmp_path / f'{i}.png')
    (tmp_path / '1.png').write_bytes(b'broken')
    out = tmp_path / 'drawn' / 'here'
    with pytest.warns(UserWarning, match='cannot read image .*1.png'):
        results = mmbeit.inference_model(segmentor(mode='whole'), tmp_path, out_dir=out, batch_size=2)
    assert [result is None for result in results.values()] == [False, True, False]
    assert sorted(path.name for path in out.iterdir()) == ['0.png', '2.png']
    drawn = np.asarray(Image.open(out / '0.png').convert('RGB'))
    assert drawn.shape[1] > drawn.shape[0] > 100 and len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50


def test_the_legend_names_the_largest_classes_with_their_shares_in_their_colours():
    classes = np.repeat([4, 2, 0], [50, 30, 20])[None].repeat(10, axis=0)
    figure = draw(picture(size=(100, 10)), classes, CLASSES, palette(7), max_legend=2)
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ['e 50 %', 'c 30 %']
    colours = [patch.get_facecolor()[:3] for patch in legend.get_patches()]
    assert colours == [tuple(palette(7)[i]) for i in (4, 2)]


@pytest.mark.parametrize('size', [(1, 1), (1, 40), (64, 1)])
def test_a_picture_of_one_pixel_or_row_has_classes(size):
    model = segmentor(**SLIDE)
    assert SegmentationInferencer(model)(picture(size=size))['pred_sem_seg'].shape == size[::-1]


def test_a_broken_picture_by_itself_is_an_error(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'')
    with pytest.raises(ImageError, match=re.escape(str(tmp_path / 'a.png'))):
        mmbeit.inference_model(segmentor(), tmp_path / 'a.png')


def test_options_of_another_inferencer_are_refused():
    with pytest.raises(TypeError, match='SegmentationInferencer has no option mask, seed'):
        mmbeit.inference_model(segmentor(), picture(), seed=1, mask=None)


def test_colours_of_the_data_set_or_evenly_spaced_ones():
    assert palette(2, [[255, 0, 0], [0, 255, 0], [0, 0, 0]]).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert len(np.unique(palette(150), axis=0)) == 150


def test_the_recipe_says_how_large_pictures_are():
    pipeline = [dict(type='Resize', scale=(2560, 640), keep_ratio=True), dict(type='PackSegInputs')]
    cfg = Config(
        dict(
            model=segmentor_cfg({}, {}) | dict(data_preprocessor=dict(mean=[1.0] * 3, std=[2.0] * 3)),
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )
    assert DataConfig.from_config(cfg) == DataConfig([1.0] * 3, [2.0] * 3, 640, 1.0, 'bilinear')


SMALL = dict(
    backbone=dict(arch=dict(_delete_=True, **TINY), img_size=32, patch_size=8, out_indices=(0, 1, 2, 3), init_cfg=None),
    neck=dict(in_channels=24, norm_cfg=dict(type='BN')),
    decode_head=dict(in_channels=[24] * 4, channels=24, norm_cfg=dict(type='BN')),
    auxiliary_head=dict(in_channels=24, channels=16, norm_cfg=dict(type='BN')),
    test_cfg=dict(crop_size=(32, 32), stride=(21, 21)),
)


@pytest.mark.parametrize('format', ['official', 'mmseg', 'hf'])
def test_a_segmentor_by_name_with_weights_of_any_format(format, tmp_path):
    name = 'beit-base-p16_beit-in21k-pre_upernet_3rdparty_ade20k-640x640'
    model = randomize_norms(mmbeit.get_model(name, **SMALL))
    torch.save({'state_dict': from_ours(model.state_dict(), format)[0]}, tmp_path / 'weights.pth')
    again = mmbeit.get_model(name, pretrained=tmp_path / 'weights.pth', **SMALL)
    assert again.data_config == DataConfig([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], 640, 1.0, 'bilinear')
    image = picture(size=(90, 70))
    results = [mmbeit.inference_model(one, image, size=48) for one in (model, again)]
    assert results[0]['areas'].keys() <= set(again._dataset_meta['classes']) and len(results[0]['areas']) > 1
    plain = mmbeit.get_model(name, pretrained=tmp_path / 'weights.pth', **SMALL | dict(auxiliary_head=None))
    results.append(mmbeit.inference_model(plain, image, size=48))
    for result in results[1:]:
        assert np.array_equal(result['pred_sem_seg'], results[0]['pred_sem_seg'])


@pytest.mark.parametrize('format', ['mmbeit', 'official', 'mmseg', 'hf'])
@torch.no_grad()
def test_weights_of_any_format_fit_a_segmentor_of_another_size(format, tmp_path):
    """Their tables are resized when they are loaded, with the result that the model gives at that size anyway."""
    name = 'beit-base-p16_beit-in21k-pre_upernet_3rdparty_ade20k-640x640'
    model = randomize_norms(mmbeit.get_model(name, **SMALL))
    state = model.state_dict() if format == 'mmbeit' else from_ours(model.state_dict(), format)[0]
    torch.save({'state_dict': state}, tmp_path / 'weights.pth')
    larger = SMALL | dict(backbone=dict(SMALL['backbone'], img_size=48))
    rebuilt = mmbeit.get_model(name, pretrained=tmp_path / 'weights.pth', **larger)
    assert rebuilt.backbone.grid == (6, 6)
    image = torch.randn(1, 3, 48, 48)
    expected = model(image)
    assert expected.std() > 0.1
    torch.testing.assert_close(rebuilt(image), expected, rtol=1e-4, atol=1e-4)
