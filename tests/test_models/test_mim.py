import copy

import pytest
import torch
from builders import NUM_CODES, randomize, tiny_backbone_cfg
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement

from mmbeit.engine.optim_wrapper import AutocastOptimWrapper
from mmbeit.models import DVAETokenizer, MIMDataPreprocessor, TargetGenerator

TOKENIZER = dict(type='mmbeit.DVAETokenizer', num_codes=NUM_CODES, width=8, num_groups=4, num_blocks=1)


class FixedTargets(TargetGenerator):
    """Gives the ids that it was told to give."""

    num_codes = NUM_CODES

    def targets(self, images):
        return self.ids


def build(target_generator=TOKENIZER, **kwargs):
    """A pretraining model for views of 32 pixels, with 16 patches and as many tokens, all weights random."""
    model = MODELS.build(
        dict(
            type='mmbeit.MaskedImageModeling',
            backbone=tiny_backbone_cfg(rel_pos_bias='shared', mask_token=True, out_type='raw', **kwargs),
            head=dict(type='mmbeit.MIMHead'),
            target_generator=target_generator,
        )
    )
    if isinstance(model.target_generator, DVAETokenizer):
        randomize(model.target_generator)
    return randomize(model)


def with_ids(ids):
    model = build(dict(type=FixedTargets))
    model.target_generator.ids = ids
    return model


@pytest.fixture
def batch():
    """Two views, and a mask of every form that a pipeline may give."""
    masks = [torch.rand(4, 4) < 0.4, (torch.rand(16) < 0.4).to(torch.uint8)]
    samples = [BaseDataElement(mask=mask.view(4, 4)) for mask in masks]
    return (torch.randn(2, 3, 32, 32), torch.rand(2, 3, 32, 32)), samples


def masks_of(samples):
    return torch.stack([sample.mask.bool().flatten() for sample in samples])


def state_of(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


# ---- the loss ----


def test_loss_is_the_mean_cross_entropy_at_masked_patches(batch):
    model = build()
    inputs, samples = batch
    mask, ids = masks_of(samples), model.target_generator(inputs[1])
    losses = model(inputs, samples, mode='loss')
    tokens = model.backbone(inputs[0], mask=mask)[-1]
    logits = model.head.fc(model.head.norm(tokens))[:, 1:]
    total, correct = 0, 0
    for image, patch in mask.nonzero().tolist():
        scores, target = logits[image, patch], ids[image, patch]
        total += torch.log(torch.exp(scores).sum()) - scores[target]
        correct += int(scores.argmax() == target)
    torch.testing.assert_close(losses['loss'], total / mask.sum())
    assert losses['accuracy'].item() == pytest.approx(100 * correct / mask.sum().item())


def test_accuracy_is_in_percent(batch):
    inputs, samples = batch
    model = with_ids(torch.zeros(2, 16, dtype=torch.long))
    predicted = torch.zeros(2, 16, dtype=torch.long)
    predicted[masks_of(samples)] = model.predict_tokens(inputs[0], masks_of(samples)).argmax(dim=1)
    model.target_generator.ids = predicted
    assert model(inputs, samples, mode='loss')['accuracy'] == 100
    model.target_generator.ids = (predicted + 1) % NUM_CODES
    assert model(inputs, samples, mode='loss')['accuracy'] == 0


def test_targets_of_visible_patches_do_not_change_the_loss(batch):
    inputs, samples = batch
    mask, ids = masks_of(samples), torch.randint(NUM_CODES, (2, 16))
    model = with_ids(ids)
    loss = model(inputs, samples, mode='loss')['loss']
    model.target_generator.ids = torch.where(mask, ids, (ids + 1) % NUM_CODES)
    assert torch.equal(model(inputs, samples, mode='loss')['loss'], loss)
    model.target_generator.ids = torch.where(mask, (ids + 1) % NUM_CODES, ids)
    assert not torch.equal(model(inputs, samples, mode='loss')['loss'], loss)


def test_a_batch_without_masked_patches_gives_zero_loss_and_zero_gradients(batch):
    model = build()
    samples = [BaseDataElement(mask=torch.zeros(4, 4, dtype=torch.uint8)) for _ in range(2)]
    losses = model(batch[0], samples, mode='loss')
    assert losses['loss'] == 0 and losses['accuracy'] == 0
    losses['loss'].backward()
    for name, parameter in model.named_parameters():  # DDP waits for every one of them
        assert parameter.grad is not None and (parameter.grad == 0).all(), name


def test_masks_without_the_right_number_of_tokens_are_refused_with_both_numbers(batch):
    (view, target_view), samples = batch
    with pytest.raises(ValueError, match='the target view gives 4 tokens for a mask of 16 patches'):
        build()((view, target_view[..., :16, :16]), samples, mode='loss')


def test_features_are_those_of_the_unmasked_first_view(batch):
    model = build()
    expected = model.backbone(batch[0][0])[-1]
    for inputs in (batch[0], batch[0][0]):
        assert torch.equal(model(inputs, mode='tensor')[-1], expected)
    with pytest.raises(ValueError, match="mode 'predict' is not one of"):
        model(batch[0], batch[1], mode='predict')


# ---- the target generator ----


def test_target_generator_stays_in_eval_mode_and_frozen():
    assert not any(module.training for module in MODELS.build(TOKENIZER).modules())
    model = build().train()
    generator = model.target_generator
    generator.train()
    assert model.backbone.training and not any(module.training for module in generator.modules())
    assert not any(parameter.requires_grad for parameter in generator.parameters())


def test_targets_carry_no_gradient():
    class Features(TargetGenerator):
        def targets(self, images):
            return images.flatten(2).mean(dim=2)

    assert not Features()(torch.rand(1, 3, 4, 4, requires_grad=True)).requires_grad


def test_target_generator_is_no_part_of_the_model():
    model = build()
    average = ExponentialMovingAverage(model)
    hidden = set(model.target_generator.modules())
    theirs = {id(tensor) for tensor in model.target_generator.state_dict(keep_vars=True).values()}
    for module in (model, average):
        assert not hidden & set(module.modules())
        assert not theirs & {id(parameter) for parameter in module.parameters()}
        assert not any('target_generator' in key or 'encoder' in key for key in module.state_dict())


def test_copies_of_the_model_share_its_target_generator():
    model = build()
    assert copy.deepcopy(model).target_generator is model.target_generator
    assert ExponentialMovingAverage(model).module.target_generator is model.target_generator


def test_target_generator_is_bit_identical_after_training_steps_with_autocast_and_averaging(batch):
    model = build(drop_path_rate=0.1).train()
    average = ExponentialMovingAverage(model)
    before, weights = state_of(model.target_generator), state_of(model)
    wrapper = AutocastOptimWrapper(optimizer=torch.optim.AdamW(model.parameters(), lr=0.01))
    for _ in range(3):
        with wrapper.optim_context(model):
            loss = model(*batch, mode='loss')['loss']
        wrapper.update_params(loss)
        average.update_parameters(model)
    after = state_of(model.target_generator)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert not torch.equal(weights['head.fc.weight'], model.head.fc.weight)


def test_target_generator_runs_in_float32_under_autocast_and_whatever_the_model_is_cast_to(batch):
    model, images = build(), torch.rand(64, 3, 32, 32)
    ids = model.target_generator(images)
    dtypes = []
    model.target_generator.encoder.blocks.output.conv.register_forward_hook(lambda *args: dtypes.append(args[-1].dtype))
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(model.target_generator(images), ids)
        assert torch.equal(model.target_generator(images.bfloat16().float()), model.target_generator(images.bfloat16()))
    for dtype in (torch.float64, torch.bfloat16):
        model.to(dtype)
        assert torch.equal(model.target_generator(images), ids)
        inputs = tuple(view.to(dtype) for view in batch[0])
        assert model(inputs, batch[1], mode='loss')['loss'].isfinite()
    assert set(dtypes) == {torch.float32}


def test_target_generator_follows_the_model_to_another_device():
    model = build().to('meta')
    assert {parameter.device.type for parameter in model.target_generator.parameters()} == {'meta'}


def test_target_generator_loads_its_weights_with_the_model_or_at_the_latest_when_it_is_used(batch, tmp_path):
    source = build().target_generator
    torch.save(source.encoder.state_dict(), tmp_path / 'encoder.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'encoder.pth'))
    expected = source(batch[0][1])
    eager, lazy = (
        MODELS.build(
            dict(
                type='mmbeit.MaskedImageModeling',
                backbone=tiny_backbone_cfg(rel_pos_bias='shared', mask_token=True, out_type='raw'),
                head=dict(type='mmbeit.MIMHead'),
                target_generator=dict(TOKENIZER, init_cfg=init_cfg),
            )
        )
        for _ in range(2)
    )
    eager.init_weights()
    assert torch.equal(eager.target_generator.encoder.blocks.input.w, source.encoder.blocks.input.w)
    assert not torch.equal(lazy.target_generator.encoder.blocks.input.w, source.encoder.blocks.input.w)
    for model in (eager, lazy):
        assert torch.equal(model.target_generator(batch[0][1]), expected)


def test_codebook_size_of_the_head_is_that_of_the_target_generator():
    assert build().head.fc.out_features == NUM_CODES


# ---- the data preprocessor ----


def test_preprocessor_normalises_the_view_and_leaves_the_target_view_in_the_unit_interval():
    mean, std = torch.tensor([10.0, 20.0, 30.0]), torch.tensor([2.0, 3.0, 4.0])
    preprocessor = MIMDataPreprocessor(mean.tolist(), std.tolist())
    view, target = torch.randint(256, (2, 3, 4, 4)), torch.randint(256, (2, 3, 2, 2))
    for views in ([view, target], [list(view), list(target)]):
        out = preprocessor({'inputs': views, 'data_samples': ['a', 'b']})
        expected = torch.stack([(view[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
        torch.testing.assert_close(out['inputs'][0], expected)
        torch.testing.assert_close(out['inputs'][1], target / 255)
        assert out['data_samples'] == ['a', 'b']
    for alone in (view, list(view)):
        torch.testing.assert_close(preprocessor({'inputs': alone})['inputs'], expected)
