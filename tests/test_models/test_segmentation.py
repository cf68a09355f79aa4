"""mmseg's EncoderDecoder around our backbone and neck, on images of any size."""

import pytest
import torch
from builders import TINY
from mmengine.config import ConfigDict
from test_checkpoint.peers import tiny_segmentor

pytest.importorskip('mmseg', reason='needs onedl-mmsegmentation, the extra `seg`')
ONE_HEAD = {**TINY, 'num_heads': 1}


def predict(segmentor, images, **test_cfg):
    """Logits, each of the size of its image."""
    segmentor.test_cfg = ConfigDict(test_cfg)
    with torch.no_grad():
        return [sample.seg_logits.data for sample in segmentor.predict(images)]


@pytest.mark.parametrize('size', [(512, 768), (1024, 1024)])
def test_a_model_of_640_pixels_segments_whole_images_as_a_model_rebuilt_for_them(size):
    options = dict(arch=ONE_HEAD, patch_size=16)
    model, rebuilt = tiny_segmentor(img_size=640, **options), tiny_segmentor(img_size=size, **options)
    rebuilt.load_state_dict(model.state_dict(), strict=True)
    image = torch.randn(1, 3, *size)
    (found,), (expected,) = (predict(m, image, mode='whole') for m in (model, rebuilt))
    assert found.shape == (7, *size)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('size', [(33, 47), (50, 31), (3, 40), (1, 1)])
@pytest.mark.parametrize('mode', ['whole', 'slide'])
def test_images_that_are_no_whole_number_of_patches_or_smaller_than_the_window(mode, size):
    logits = predict(tiny_segmentor(), torch.randn(2, 3, *size), mode=mode, crop_size=(32, 32), stride=(21, 21))
    assert [x.shape for x in logits] == [(7, *size)] * 2
    assert all(x.isfinite().all() for x in logits)
