import copy
import math

import pytest
import torch
from builders import TINY, randomize
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from test_checkpoint import official
from torch import nn

from mmbeit.checkpoint.formats import from_ours, to_ours
from mmbeit.engine.optim_wrapper import AutocastOptimWrapper
from mmbeit.evaluation import CodebookUsage
from mmbeit.models import VQKD, TargetGenerator, VQKDTokenizer

NUM_CODES, DIMS = 16, 10
SIZES = dict(arch=TINY, img_size=32, patch_size=8, num_codes=NUM_CODES, code_dim=8)
# All parameters of the official models, and those that learn (unilm:beit2/modeling_vqkd.py, teacher 'None').
COUNTS = {
    (1, 512): (95_187_488, 94_655_008),
    (3, 512): (109_361_696, 108_829_216),
    (1, 768): (95_384_352, 94_851_872),
}


class ColorTeacher(TargetGenerator):
    """Features of a patch that follow from its mean colour."""

    embed_dims = DIMS

    def __init__(self, patch_size=8):
        super().__init__()
        self.pool = nn.AvgPool2d(patch_size)
        self.norm = nn.BatchNorm1d(3)  # in training mode it would change
        self.proj = nn.Linear(3, DIMS)
        self.requires_grad_(False).eval()

    def targets(self, images):
        return self.proj(self.norm(self.pool(images).flatten(2) - 0.5).transpose(1, 2))


def build(teacher=True, num_decoder_layers=1, **kwargs):
    """A model that is not randomised, so that it learns; its codebook starts by k-means."""
    model = VQKD(
        {**SIZES, **kwargs}, num_decoder_layers, dict(type=ColorTeacher) if teacher else None, None if teacher else DIMS
    )
    model.init_weights()
    return model


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def identical(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def train(model, num_steps, lr=2e-3, images=None):
    """Under autocast, on random colours; gives the losses of each step."""
    model.train()
    wrapper = AutocastOptimWrapper(optimizer=torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99)))
    average, history = ExponentialMovingAverage(model), []
    for _ in range(num_steps):
        batch = torch.rand(8, 3, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3) if images is None else images
        with wrapper.optim_context(model):
            losses = model(batch, mode='loss')
        loss, _ = model.parse_losses(losses)
        wrapper.update_params(loss)
        average.update_parameters(model)
        history.append({name: value.item() for name, value in losses.items()})
    return history


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 48)


# ---- the loss ----


def test_losses_are_one_minus_cosine_and_commitment(images):
    model = randomize(build(kmeans_init=False))
    vectors, ids, commitment = model.tokenizer(images)
    tokens = model.decoder(vectors.transpose(1, 2).unflatten(2, (4, 6)))[0][:, 1:]
    features = model.decode_task_layer[2](torch.tanh(model.decode_task_layer[0](tokens)))
    targets = model.teacher(images)
    cosines = [(f @ t / f.norm() / t.norm()).item() for f, t in zip(features[0], targets[0], strict=True)]
    cosines += [(f @ t / f.norm() / t.norm()).item() for f, t in zip(features[1], targets[1], strict=True)]
    losses = model(images, mode='loss')
    assert losses['loss_reconstruction'].item() == pytest.approx(1 - sum(cosines) / len(cosines), abs=1e-6)
    assert torch.equal(losses['loss_commitment'], commitment)
    assert 1 < losses['perplexity'] <= len(ids.unique())
    torch.testing.assert_close(model(images), features)


def test_every_parameter_of_encoder_and_decoder_learns(images):
    model = randomize(build(num_decoder_layers=2))
    model.parse_losses(model(images, mode='loss'))[0].backward()
    assert not [name for name, parameter in model.named_parameters() if not parameter.grad.any()]
    model.zero_grad()
    model(images, mode='loss')['loss_reconstruction'].backward()  # passes the codes by
    assert model.tokenizer.encoder.patch_embed.proj.weight.grad.abs().max() > 0


def test_training_reduces_both_losses():
    model = build()
    history = train(model, 150)
    first, last = history[0], {name: sum(step[name] for step in history[-10:]) / 10 for name in history[0]}
    assert last['loss_reconstruction'] < first['loss_reconstruction'] / 3
    assert last['loss_commitment'] < 0.05
    assert last['perplexity'] > 4


@torch.no_grad()
def test_predictions_are_what_the_metric_takes(images):
    model = randomize(build(kmeans_init=False))
    predictions = model(images, mode='predict')
    vectors, ids, _ = model.tokenizer(images)
    for i, prediction in enumerate(predictions):
        assert torch.equal(prediction['ids'], ids[i].view(4, 6))
        features = model(images)[i]
        errors = 1 - torch.cosine_similarity(features, model.teacher(images)[i], dim=-1)
        torch.testing.assert_close(prediction['error'], errors.mean())
    metric = CodebookUsage()
    metric.process({}, predictions)
    assert metric.evaluate(2)['codebook/usage'] == 100 * len(ids.unique()) / NUM_CODES
    assert 'error' not in build(teacher=False)(images, mode='predict')[0]


def test_evaluation_changes_nothing(images):
    model = build()
    train(model, 2)
    before = state_of(model)
    model.eval()
    for mode in ('loss', 'predict', 'tensor'):
        model(images, mode=mode)
    assert identical(before, state_of(model))


# ---- the teacher ----


def test_teacher_and_frozen_tokenizer_are_bit_identical_after_50_training_steps(tmp_path):
    model = build()
    train(model, 1)
    torch.save(model.state_dict(), tmp_path / 'vqkd.pth')
    tokenizer = VQKDTokenizer(**SIZES, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'vqkd.pth')))
    mim = MODELS.build(
        dict(
            type='mmbeit.MaskedImageModeling',
            backbone=dict(
                type='mmbeit.BEiT',
                arch=dict(TINY),
                img_size=32,
                patch_size=8,
                rel_pos_bias='shared',
                mask_token=True,
                out_type='raw',
            ),
            head=dict(type='mmbeit.MIMHead', num_codes=NUM_CODES),
        )
    )
    mim.__dict__['target_generator'] = tokenizer
    tokenizer.init_weights()
    frozen = [model.teacher, tokenizer]
    before, weights = [state_of(module) for module in frozen], [state_of(model), state_of(mim)]

    wrapper = AutocastOptimWrapper(optimizer=torch.optim.AdamW(mim.parameters(), lr=0.01))
    for _ in range(50):
        train(model, 1)
        view = torch.rand(2, 3, 32, 32)
        mask = [dict(mask=torch.rand(4, 4) < 0.5) for _ in range(2)]
        samples = [type('Sample', (), sample) for sample in mask]
        mim.train()
        with wrapper.optim_context(mim):
            loss = mim((view, view), samples, mode='loss')['loss']
        wrapper.update_params(loss)
    assert all(identical(state, state_of(module)) for state, module in zip(before, frozen, strict=True))
    assert not any(module.training for root in frozen for module in root.modules())
    assert not any(parameter.requires_grad for root in frozen for parameter in root.parameters())
    for state, module in zip(weights, (model, mim), strict=True):
        assert not any(torch.equal(state[name], parameter) for name, parameter in module.named_parameters())


def test_teacher_is_no_part_of_the_model():
    model = build()
    average = ExponentialMovingAverage(model)
    hidden = set(model.teacher.modules())
    for module in (model, average):
        assert not hidden & set(module.modules())
        assert not {id(p) for p in model.teacher.parameters()} & {id(p) for p in module.parameters()}
        assert not any('teacher' in key for key in module.state_dict())
    assert copy.deepcopy(model).teacher is model.teacher
    model.to('meta')
    assert {parameter.device.type for parameter in model.teacher.parameters()} == {'meta'}


def test_widths_have_to_agree(images):
    with pytest.raises(ValueError, match=r'target_dims \(None\).*NoneType.*found none'):
        VQKD(SIZES, 1)
    with pytest.raises(ValueError, match=r'target_dims \(12\).*ColorTeacher.*\[10, 12\]'):
        VQKD(SIZES, 1, dict(type=ColorTeacher), target_dims=12)
    with pytest.raises(ValueError, match='built without a teacher: training needs one'):
        build(teacher=False)(images, mode='loss')
    coarse = VQKD(SIZES, 1, dict(type=ColorTeacher, patch_size=16))
    with pytest.raises(ValueError, match=r'teacher gives features \(2, 6, 10\), the decoder \(2, 24, 10\)'):
        coarse(images, mode='loss')
    with pytest.raises(ValueError, match="mode 'losses' is not one of"):
        coarse(images, mode='losses')


# ---- sizes, and what is saved ----


@pytest.mark.parametrize(('num_decoder_layers', 'target_dims'), COUNTS)
def test_parameters_are_as_many_as_officially(num_decoder_layers, target_dims):
    """Of what does not learn, all are parameters officially: the codebook, and two buffers that nothing reads."""
    with torch.device('meta'):
        model = VQKD({}, num_decoder_layers, target_dims=target_dims)
    learnable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    buffers = {name: buffer.numel() for name, buffer in model.tokenizer.quantizer.named_buffers()}
    assert buffers == dict(codebook=8192 * 32, cluster_size=8192, initted=1)
    total = learnable + 2 * buffers['codebook'] + buffers['cluster_size']
    assert (total, learnable) == COUNTS[num_decoder_layers, target_dims]
    shapes = official.vqkd(decoder_depth=num_decoder_layers, target=target_dims)
    theirs = sum(math.prod(shape) for name, shape in shapes.items() if 'initted' not in name and '.cluster' not in name)
    assert theirs + buffers['cluster_size'] == total


def test_official_weights_go_in_and_out(images):
    state = official.random(official.vqkd(dim=24, depth=4, decoder_depth=2, target=DIMS))
    state |= {'encoder.pos_embed': torch.randn(1, 17, 24), 'decoder.pos_embed': torch.randn(1, 17, 24)}
    state['encoder.patch_embed.proj.weight'] = torch.randn(24, 3, 8, 8)
    ours, _ = to_ours(state)
    model = build(num_decoder_layers=2, num_codes=8192, code_dim=32)
    model.load_state_dict(ours)
    assert torch.equal(model.tokenizer.quantizer.cluster_size, state['quantize.cluster_size'])
    back, table = from_ours(model.state_dict(), 'official')
    assert table.kind == 'vqkd' and back.keys() == state.keys()
    vestigial = ('quantize.embedding.cluster_size', 'quantize.embedding.embed_avg')
    assert all(torch.equal(value, state[name]) for name, value in back.items() if name not in vestigial)


def test_tokenizer_from_a_checkpoint_of_training(images, tmp_path):
    model = build()
    train(model, 3)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / 'epoch_1.pth')
    tokenizer = VQKDTokenizer(**SIZES, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'epoch_1.pth')))
    model.eval()
    assert torch.equal(tokenizer(images), model.tokenizer(images).ids)
    assert torch.equal(tokenizer(images), torch.stack([p['ids'].flatten() for p in model(images, mode='predict')]))
