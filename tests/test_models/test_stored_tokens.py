import pytest
import torch
from builders import NUM_CODES, randomize, tiny_backbone_cfg
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement

from mmbeit.models import MIMDataPreprocessor, StoredTokens

TOKENIZER = dict(type='mmbeit.DVAETokenizer', num_codes=NUM_CODES, width=8, num_groups=4, num_blocks=1)


def build(target_generator):
    return MODELS.build(
        dict(
            type='mmbeit.MaskedImageModeling',
            backbone=tiny_backbone_cfg(rel_pos_bias='shared', mask_token=True, out_type='raw'),
            head=dict(type='mmbeit.MIMHead'),
            target_generator=target_generator,
            data_preprocessor=dict(type='mmbeit.MIMDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3),
        )
    )


@pytest.mark.parametrize('autocast', [False, True])
def test_loss_is_that_of_the_tokenizer_itself(autocast):
    live = randomize(build(TOKENIZER))
    randomize(live.target_generator)
    stored = build(dict(type='mmbeit.StoredTokens', num_codes=NUM_CODES))
    stored.load_state_dict(live.state_dict())
    stored.eval()
    views = torch.randint(256, (2, 2, 3, 32, 32), dtype=torch.uint8)
    samples = [BaseDataElement(mask=torch.rand(4, 4) < 0.4) for _ in range(2)]
    ids = live.target_generator(views[1].float() / 255)
    assert len(ids.unique()) > 2
    losses = []
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        for model, target in ((live, views[1]), (stored, ids)):
            data = model.data_preprocessor(dict(inputs=[views[0], target], data_samples=samples), training=True)
            losses.append(model(**data, mode='loss'))
    assert all(torch.equal(losses[0][key], losses[1][key]) for key in losses[0])
    assert losses[0]['loss'] > 0


def test_ids_pass_exactly():
    tokens = StoredTokens(num_codes=2**20).half()
    ids = torch.randint(2**20, (2, 16))
    assert torch.equal(tokens(ids), ids)
    assert not list(tokens.parameters()) and not tokens.state_dict()


@pytest.mark.parametrize('batched', [True, False])
def test_preprocessor_scales_pictures_and_passes_ids(batched):
    preprocess = MIMDataPreprocessor(mean=[100.0] * 3, std=[50.0] * 3)
    view, ids = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8), torch.randint(999, (2, 16))
    given = [view, ids] if batched else [list(view), list(ids)]
    normalised, passed = preprocess(dict(inputs=given))['inputs']
    torch.testing.assert_close(normalised, (view.float() - 100) / 50)
    assert passed.dtype == torch.int64 and torch.equal(passed, ids)
