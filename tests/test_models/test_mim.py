import copy

import pytest
import torch
from builders import NUM_CODES, randomize, tiny_backbone_cfg
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement

from mmbeit.engine.optim_wrapper import AutocastOptimWrapper
from mmbeit.layers.masked import find_masked
from mmbeit.models import DVAETokenizer, MIMDataPreprocessor, TargetGenerator, VQKDTokenizer

TOKENIZER = dict(type='mmbeit.DVAETokenizer', num_codes=NUM_CODES, width=8, num_groups=4, num_blocks=1)


TOKENIZER_V2 = dict(
    type='mmbeit.VQKDTokenizer',
    arch=dict(embed_dims=24, num_layers=1, num_heads=3, feedforward_channels=48),
    img_size=32,
    patch_size=8,
    num_codes=NUM_CODES,
    code_dim=8,
)
V2_LOSSES = ('loss_mim', 'accuracy_mim', 'loss_cls', 'accuracy_cls')
VERSIONS = pytest.mark.parametrize('v2', [False, True], ids=['v1', 'v2'])


class FixedTargets(TargetGenerator):
    """Gives the ids that it was told to give."""

    num_codes = NUM_CODES
    stride = 8

    def targets(self, images):
        return self.ids


def config(target_generator=TOKENIZER, v2=False, neck=None, shared=True, **kwargs):
    """Config of a pretraining model for views of 32 pixels, with 16 patches and as many tokens."""
    backbone = {'rel_pos_bias': 'shared', 'mask_token': True, 'out_type': 'raw', **kwargs}
    return dict(
        type='mmbeit.MaskedImageModeling',
        backbone=tiny_backbone_cfg(**backbone),
        neck=dict(type='mmbeit.PatchAggregationNeck', early_layers=2, **neck or {}) if v2 else None,
        head=dict(type='mmbeit.MIMHead', shared=shared),
        target_generator=target_generator,
    )


def build(*args, **kwargs):
    """The model of that config, all weights random."""
    model = MODELS.build(config(*args, **kwargs))
    if isinstance(model.target_generator, (DVAETokenizer, VQKDTokenizer)):
        randomize(model.target_generator)
    return randomize(model)


def with_ids(ids, **kwargs):
    model = build(dict(type=FixedTargets), **kwargs)
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


@VERSIONS
def test_targets_of_visible_patches_do_not_change_the_loss(v2, batch):
    inputs, samples = batch
    mask, ids = masks_of(samples), torch.randint(NUM_CODES, (2, 16))
    model = with_ids(ids, v2=v2)
    losses = model(inputs, samples, mode='loss')
    assert tuple(losses) == (V2_LOSSES if v2 else ('loss', 'accuracy'))
    model.target_generator.ids = torch.where(mask, ids, (ids + 1) % NUM_CODES)
    same = model(inputs, samples, mode='loss')
    model.target_generator.ids = torch.where(mask, (ids + 1) % NUM_CODES, ids)
    other = model(inputs, samples, mode='loss')
    for name, loss in losses.items():
        assert torch.equal(same[name], loss)
        if 'loss' in name:
            assert not torch.equal(other[name], loss)


@VERSIONS
def test_a_batch_without_masked_patches_gives_zero_loss_and_zero_gradients(v2, batch):
    model = build(v2=v2)
    samples = [BaseDataElement(mask=torch.zeros(4, 4, dtype=torch.uint8)) for _ in range(2)]
    losses = model(batch[0], samples, mode='loss')
    assert all(value == 0 for value in losses.values())
    model.parse_losses(losses)[0].backward()
    for name, parameter in model.named_parameters():  # DDP waits for every one of them
        assert parameter.grad is not None and (parameter.grad == 0).all(), name


def test_masks_without_the_right_number_of_tokens_are_refused_with_both_numbers(batch):
    (view, target_view), samples = batch
    with pytest.raises(ValueError, match='the target view gives 4 tokens for a mask of 16 patches'):
        build()((view, target_view[..., :16, :16]), samples, mode='loss')


def test_a_model_without_a_target_generator_is_not_trained(batch):
    cfg = config(target_generator=None)
    model = MODELS.build({**cfg, 'head': dict(cfg['head'], num_codes=NUM_CODES)})
    assert len(model(batch[0], mode='tensor')) == 1
    with pytest.raises(ValueError, match='built without a target_generator: training needs one'):
        model(*batch, mode='loss')


def test_features_are_those_of_the_unmasked_first_view(batch):
    model = build()
    expected = model.backbone(batch[0][0])[-1]
    for inputs in (batch[0], batch[0][0]):
        assert torch.equal(model(inputs, mode='tensor')[-1], expected)
    with pytest.raises(ValueError, match="mode 'predict' is not one of"):
        model(batch[0], batch[1], mode='predict')


# ---- no work on what the loss does not look at ----


def plain_losses(model, inputs, samples):
    """Every token is computed to the end, and the masked ones are picked then."""
    mask, ids = masks_of(samples), model.target_generator(inputs[1])
    biases = model.backbone.attn_biases(inputs[0])
    if model.neck is None:
        streams = {'mim': model.backbone.block_tokens(inputs[0], mask, [3])[0]}
    else:
        early, last = model.backbone.block_tokens(inputs[0], mask, [1, 3], biases)
        streams = {'mim': last, 'cls': model.neck(early, last[:, 0], biases[-1])}
    return model.head.loss({name: tokens[:, 1:][mask] for name, tokens in streams.items()}, ids[mask])


@VERSIONS
@pytest.mark.parametrize('with_cp', [False, True])
def test_losses_and_gradients_are_those_of_computing_everything(v2, with_cp, batch):
    model = build(v2=v2, drop_path_rate=0.5, with_cp=with_cp).train()
    inputs, samples = batch
    found = {}
    for name, losses_of in (('lean', lambda: model(inputs, samples, mode='loss')), ('plain', None)):
        torch.manual_seed(3)
        losses = losses_of() if losses_of else plain_losses(model, inputs, samples)
        model.zero_grad()
        model.parse_losses(losses)[0].backward()
        found[name] = losses, {key: parameter.grad for key, parameter in model.named_parameters()}
    torch.testing.assert_close(found['lean'], found['plain'], rtol=1e-5, atol=1e-6)


@VERSIONS
def test_the_last_block_runs_for_what_is_predicted_from(v2, batch):
    model, rows = build(v2=v2), []
    inputs, samples = batch
    most = int(masks_of(samples).sum(dim=1).max())
    blocks = [model.backbone.blocks[-1], *([model.neck.blocks[-1]] if v2 else [])]
    for block in blocks:
        for part in (block.attn, block.mlp):
            part.register_forward_hook(lambda module, args, out: rows.append(tuple(out.shape[:2])))
    model(inputs, samples, mode='loss')
    assert rows == ([(2, 1 + most)] * 2 if v2 else []) + [(2, most)] * 2  # the neck needs the class tokens


# ---- the second stream of v2 ----


@pytest.mark.parametrize('shared', [True, False])
def test_each_stream_is_predicted_from_and_has_a_loss_by_its_name(shared, batch):
    model = build(v2=True, shared=shared)
    inputs, samples = batch
    mask, ids = masks_of(samples), model.target_generator(inputs[1])
    early, last = model.backbone.block_tokens(inputs[0], mask, (1, 3))
    aggregated = model.neck(early, last[:, 0], model.backbone.attn_biases(inputs[0])[0])
    head, losses = model.head, model(inputs, samples, mode='loss')
    norm, fc = (head.norm, head.fc) if shared else (head.cls_norm, head.cls_fc)
    logits = {'mim': head.fc(head.norm(last)), 'cls': fc(norm(aggregated))}
    predicted = model.predict_streams(inputs[0], mask)
    for name, scores in logits.items():
        scores = scores[:, 1:][mask]
        torch.testing.assert_close(predicted[name], scores)
        torch.testing.assert_close(losses[f'loss_{name}'], torch.nn.functional.cross_entropy(scores, ids[mask]))
        correct = (scores.argmax(dim=1) == ids[mask]).float().mean().item()
        assert losses[f'accuracy_{name}'].item() == pytest.approx(100 * correct)
    assert tuple(losses) == V2_LOSSES and predicted.keys() == logits.keys()


def test_losses_of_the_streams_count_alike(batch):
    model = build(v2=True)
    losses = model(*batch, mode='loss')
    total, logged = model.parse_losses(losses)
    assert total == logged['loss'] == losses['loss_mim'] + losses['loss_cls']


def test_nothing_is_computed_twice_and_nothing_for_nothing(batch):
    model, calls = build(v2=True), []
    inputs, samples = batch
    for name in ('neck', 'head', 'backbone.patch_embed', 'backbone.rel_pos_bias.0'):
        model.get_submodule(name).register_forward_hook(lambda *args, name=name: calls.append(name))
    rows = []
    model.head.fc.register_forward_hook(lambda module, args, out: rows.append(len(out)))
    model(*batch, mode='loss')
    assert sorted(calls) == ['backbone.patch_embed', 'backbone.rel_pos_bias.0', 'head', 'neck']
    assert rows == [masks_of(samples).sum()] * 2
    calls.clear()
    tokens = model.predict_tokens(inputs[0], masks_of(samples))
    assert torch.equal(tokens, model.predict_streams(inputs[0], masks_of(samples))['mim'])
    assert calls.count('neck') == 1
    calls.clear()
    assert len(model(inputs, mode='tensor')) == 1 and 'neck' not in calls


def test_the_neck_adds_the_bias_of_the_backbone(batch):
    model, seen = build(v2=True), []
    for block in [*model.backbone.blocks, *model.neck.blocks]:
        block.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    model(*batch, mode='loss')
    assert len(seen) == 6 and seen[0].shape == (3, 17, 17)
    assert all(bias is seen[0] for bias in seen)


def gradients_at(model, batch, name):
    """Of one of the losses: at the tokens after the second and after the last block, and at every parameter."""
    model.zero_grad()
    tokens = {}
    for i in (1, 3):
        model.backbone.blocks[i].register_forward_hook(lambda *args, i=i: tokens.update({i: args[-1]}))
    loss = model(*batch, mode='loss')[f'loss_{name}']
    parameters = dict(model.named_parameters())
    wanted = [tokens[1], tokens[3], *parameters.values()]
    early, last, *rest = torch.autograd.grad(loss, wanted, allow_unused=True)
    return early, last, dict(zip(parameters, rest, strict=True))


def test_gradients_of_the_second_stream_reach_late_blocks_through_the_class_token_alone(batch):
    model = build(v2=True)
    early, last, parameters = gradients_at(model, batch, 'cls')
    cls_tokens, patches = last[:, 0], last[:, 1:]  # the masked ones alone
    assert cls_tokens.abs().sum() > 0 and (patches == 0).all()
    assert early[:, 1:].abs().sum() > 0
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in parameters.values())
    _, last, parameters = gradients_at(model, batch, 'mim')
    assert (last[:, 0] == 0).all() and last[:, 1:].abs().sum() > 0
    for name, gradient in parameters.items():
        assert (gradient is None) == name.startswith('neck.'), name


def test_an_own_classifier_of_the_second_stream_learns_from_it_alone(batch):
    model = build(v2=True, shared=False)
    for stream, idle in (('mim', ('head.cls_', 'neck.')), ('cls', ('head.norm', 'head.fc'))):
        _, _, parameters = gradients_at(model, batch, stream)
        for name, gradient in parameters.items():
            assert (gradient is None) == name.startswith(idle), name


def test_the_neck_is_made_like_the_backbone_where_its_config_does_not_say():
    kwargs = dict(v2=True, layer_scale=0.5, drop_path_rate=0.3, with_cp=True)
    model = MODELS.build(config(**kwargs))
    expected = {key: value.shape for key, value in model.backbone.blocks[0].state_dict().items()}
    assert {key: value.shape for key, value in model.neck.blocks[0].state_dict().items()} == expected
    assert (model.neck.blocks[0].scale1.gamma == 0.5).all()
    assert [block.drop_path.rate for block in model.neck.blocks] == pytest.approx([0.2, 0.3])
    assert model.neck.with_cp
    other = MODELS.build(config(neck=dict(layer_scale=None, drop_path_rate=0, num_layers=1, with_cp=False), **kwargs))
    assert [block.drop_path.rate for block in other.neck.blocks] == [0]
    assert not any('scale' in key for key in other.neck.state_dict())
    assert not other.neck.with_cp


def test_a_backbone_without_a_bias_has_a_neck_without_one(batch):
    assert build(v2=True, rel_pos_bias=None)(*batch, mode='loss')['loss_cls'].isfinite()
    with pytest.raises(ValueError, match="'per_block' leaves none for a neck: give the backbone 'shared' or None"):
        build(v2=True, rel_pos_bias='per_block')


@pytest.mark.parametrize('size', [(24, 40), (48, 32)])
def test_v2_takes_views_of_other_sizes(size):
    model, grid = build(dict(type=FixedTargets), v2=True), (size[0] // 8, size[1] // 8)
    num_patches = grid[0] * grid[1]
    model.target_generator.ids = torch.randint(NUM_CODES, (1, num_patches))
    samples = [BaseDataElement(mask=torch.rand(grid) < 0.4)]
    views = (torch.randn(1, 3, *size), torch.rand(1, 3, *size))
    assert all(value.isfinite() for value in model(views, samples, mode='loss').values())


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


@VERSIONS
def test_target_generator_is_bit_identical_after_training_steps_with_autocast_and_averaging(v2, batch):
    model = build(TOKENIZER_V2 if v2 else TOKENIZER, drop_path_rate=0.1, v2=v2).train()
    average = ExponentialMovingAverage(model)
    before, weights = state_of(model.target_generator), state_of(model)
    wrapper = AutocastOptimWrapper(optimizer=torch.optim.AdamW(model.parameters(), lr=0.01))
    for _ in range(50):
        with wrapper.optim_context(model):
            loss, _ = model.parse_losses(model(*batch, mode='loss'))
        wrapper.update_params(loss)
        average.update_parameters(model)
    after = state_of(model.target_generator)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    for key in (
        'head.fc.weight',
        'backbone.blocks.0.mlp.fc1.weight',
        *(['neck.blocks.0.mlp.fc1.weight'] if v2 else []),
    ):
        assert not torch.equal(weights[key], model.state_dict()[key]), key


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
    eager, lazy = (MODELS.build(config(dict(TOKENIZER, init_cfg=init_cfg))) for _ in range(2))
    eager.init_weights()
    assert torch.equal(eager.target_generator.encoder.blocks.input.w, source.encoder.blocks.input.w)
    assert not torch.equal(lazy.target_generator.encoder.blocks.input.w, source.encoder.blocks.input.w)
    for model in (eager, lazy):
        assert torch.equal(model.target_generator(batch[0][1]), expected)


@pytest.mark.parametrize('cfg', [TOKENIZER, TOKENIZER_V2, dict(type=FixedTargets)], ids=['v1', 'v2', 'any'])
@pytest.mark.parametrize('counts', [(5, 2, 7), (4, 4, 4), (0, 3, 0), (0, 0, 0)])
def test_targets_of_masked_patches_are_those_of_all(cfg, counts):
    generator, images = MODELS.build(cfg), torch.rand(3, 3, 32, 48)
    if isinstance(generator, FixedTargets):
        generator.ids = torch.randint(NUM_CODES, (3, 24))
    else:
        randomize(generator)
    mask = torch.rand(3, 24).argsort(dim=1).argsort(dim=1) < torch.tensor(counts)[:, None]
    ids = generator(images)
    assert len(ids.unique()) > 2
    assert torch.equal(generator(images, find_masked(mask, images.device)), ids[mask])


def test_tokenizers_compute_what_is_masked_in_their_last_layers(batch):
    (_, target_view), samples = batch
    masked = find_masked(masks_of(samples), target_view.device)
    shapes = []
    v1, v2 = MODELS.build(TOKENIZER), MODELS.build(TOKENIZER_V2)
    for layer in (v1.encoder.blocks.output, v2.network.encoder.blocks[-1].mlp, v2.network.encode_task_layer):
        layer.register_forward_hook(lambda module, args, out: shapes.append(tuple(args[0].shape)))
    v1(target_view, masked)
    v2(target_view, masked)
    most = masked.tokens.shape[1]
    assert shapes == [(2, 64, most, 1), (2, most, 24), (1, len(masked.places), 24)] and most < 16


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
