import pytest
import torch
from builders import TINY, randomize, tiny_classifier, tiny_mim
from mmengine.logging import HistoryBuffer

from mmbeit.checkpoint.formats import from_ours
from mmbeit.checkpoint.load import CheckpointError
from mmbeit.models import VQKD, BEiTTeacher, DiscreteVAE

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
BACKBONE = dict(arch=TINY, img_size=32, patch_size=8)


def teacher(state=None, path=None, **kwargs):
    backbone = {**BACKBONE, 'rel_pos_bias': 'shared', **kwargs.pop('backbone', {})}
    init_cfg = None
    if state is not None:
        torch.save(state, path)
        init_cfg = dict(type='Pretrained', checkpoint=str(path))
    return BEiTTeacher(backbone, MEAN, STD, init_cfg=init_cfg, **kwargs)


@pytest.mark.parametrize('format', ['mmbeit', 'official', 'hf', 'mmpretrain'])
@pytest.mark.parametrize('block', [-1, 1])
def test_features_are_those_of_the_pretrained_model(format, block, tmp_path):
    model, images = tiny_mim(), torch.rand(2, 3, 32, 32)
    found = teacher(from_ours(model.state_dict(), format)[0], tmp_path / 'mim.pth', block=block)(images)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))
    expected = model.backbone.block_tokens((images - mean) / std, None, [block % 4])[0][:, 1:]
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


def test_a_classifier_may_teach(tmp_path):
    model = tiny_classifier()
    state = dict(state_dict=model.state_dict(), meta={}, message_hub=dict(log=HistoryBuffer([1.0], [1])), optimizer={})
    found = teacher(state, tmp_path / 'classifier.pth', backbone=dict(rel_pos_bias='per_block'))
    found.init_weights()
    assert torch.equal(found.network.blocks[2].mlp.fc1.weight, model.backbone.blocks[2].mlp.fc1.weight)


def test_it_sees_as_many_patches_as_the_tokenizer():
    features = randomize(teacher(stride=16))(torch.rand(2, 3, 64, 32))
    assert features.shape == (2, 4 * 2, 24)


def test_weights_of_something_else_are_refused(tmp_path):
    dvae = DiscreteVAE(num_codes=16, width=8, num_groups=3, num_blocks=1)
    with pytest.raises(
        CheckpointError, match='dvae.pth: expected a model with a backbone, but this is a mmbeit layout'
    ):
        teacher(dvae.state_dict(), tmp_path / 'dvae.pth').init_weights()
    small = teacher(tiny_mim().state_dict(), tmp_path / 'mim.pth', backbone=dict(arch={**TINY, 'num_layers': 3}))
    with pytest.raises(CheckpointError, match='mim.pth.*the weights do not fit this backbone: 15 unexpected: blocks.3'):
        small.init_weights()


def test_it_teaches():
    cfg = dict(type='mmbeit.BEiTTeacher', backbone=BACKBONE, mean=MEAN, std=STD)
    tokenizer = dict(arch=TINY, img_size=32, patch_size=8, num_codes=11, code_dim=4)
    model = VQKD(tokenizer, num_decoder_layers=1, teacher=cfg)
    losses = model(torch.rand(2, 3, 32, 32), mode='loss')
    assert losses['loss_reconstruction'] > 0 and 'teacher' not in dict(model.named_children())
