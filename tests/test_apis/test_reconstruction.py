"""Pictures of predicted tokens."""

import numpy as np
import pytest
import torch
from builders import TINY, randomize
from PIL import Image

from mmbeit.apis.reconstruction import load_views, reconstruct
from mmbeit.models import MaskedImageModeling

TOKENIZER = dict(type='mmbeit.DVAETokenizer', num_codes=16, width=8, num_groups=2, num_blocks=1, decoder=True)


def tiny_model(**tokenizer):
    model = MaskedImageModeling(
        data_preprocessor=dict(type='mmbeit.MIMDataPreprocessor', mean=[100.0] * 3, std=[50.0] * 3),
        backbone=dict(type='mmbeit.BEiT', arch=TINY, img_size=(16, 24), patch_size=8, mask_token=True, out_type='raw'),
        head=dict(type='mmbeit.MIMHead'),
        target_generator={**TOKENIZER, **tokenizer},
    )
    randomize(model.target_generator)
    return randomize(model)


def test_only_masked_patches_are_predicted(tmp_path):
    model = tiny_model()
    path = tmp_path / 'image.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(path)
    view, target_view = load_views(model, [path, path])
    assert view.shape == (2, 3, 16, 24) and target_view.shape == (2, 3, 4, 6)
    torch.testing.assert_close(view.mean() * 50 + 100, target_view.mean() * 255, rtol=0.05, atol=0)
    mask = torch.zeros(2, 2, 3, dtype=torch.bool)
    mask[0, 0, 1] = mask[1, 1] = True
    result = reconstruct(model, view, target_view, mask)
    logits = model.predict_tokens(view, mask.flatten(1))
    assert torch.equal(result.predicted_ids[mask], logits.argmax(1))
    assert torch.equal(result.predicted_ids[~mask], result.ids[~mask])
    assert torch.equal(result.from_tokens, model.target_generator.decode(result.ids))
    assert torch.equal(result.from_prediction, model.target_generator.decode(result.predicted_ids))
    hidden = result.masked[0, :, :2, 2:4]
    assert (hidden == 0.5).all() and torch.equal(result.masked[0, :, 2:], target_view[0, :, 2:])


def test_without_a_decoder_there_is_no_picture():
    model = tiny_model(decoder=False)
    with pytest.raises(ValueError, match='decoder=True'):
        reconstruct(model, torch.zeros(1, 3, 16, 24), torch.zeros(1, 3, 4, 6), torch.ones(1, 2, 3, dtype=torch.bool))
