import copy

import numpy as np
import pytest
import torch
from builders import TINY, randomize, tiny_beit
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from torch.utils._python_dispatch import TorchDispatchMode

from mmbeit.evaluation import LinearProbeAccuracy
from mmbeit.models import LinearProbeHead

NUM_CLASSES = 7
BACKBONE = dict(rel_pos_bias='shared', out_type='raw', out_indices=[0, 1, 2, 3], frozen_stages=4)


def head() -> LinearProbeHead:
    return randomize(LinearProbeHead(NUM_CLASSES, in_channels=24, num_blocks=4))


def classifier():
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            data_preprocessor=dict(num_classes=NUM_CLASSES, mean=[127.5] * 3, std=[127.5] * 3),
            backbone=dict(type='mmbeit.BEiT', arch=TINY, img_size=32, patch_size=8, **BACKBONE),
            head=dict(type='mmbeit.LinearProbeHead', num_classes=NUM_CLASSES, in_channels=24, num_blocks=4),
        )
    )
    model.init_weights()
    return model


def samples(*labels: int) -> list[DataSample]:
    return [DataSample().set_gt_label(label) for label in labels]


def test_head_against_the_formula_block_by_block():
    images, labels = torch.randn(3, 3, 32, 32), [2, 0, 6]
    backbone, probe = tiny_beit(**BACKBONE), head()
    total, logits = 0, []
    for i in range(4):  # each block by a backbone that ends there
        tokens = tiny_beit(**{**BACKBONE, 'out_indices': [i]})
        tokens.load_state_dict(backbone.state_dict())
        tokens = tokens(images)[0]
        feature = torch.zeros(3, 48)
        for b in range(3):
            feature[b, :24] = tokens[b, 0]
            feature[b, 24:] = sum(tokens[b, 1 + n] for n in range(16)) / 16
        logits.append(feature @ probe.classifiers[i].weight.T + probe.classifiers[i].bias)
        probs = logits[-1].softmax(dim=1)
        total = total - sum(probs[b, label].log() for b, label in enumerate(labels)) / 3
    torch.testing.assert_close(probe(backbone(images)), torch.stack(logits), rtol=1e-5, atol=1e-5)
    loss = probe.loss(backbone(images), samples(*labels))
    assert list(loss) == ['loss']
    torch.testing.assert_close(loss['loss'], total, rtol=1e-5, atol=1e-5)


def test_features_are_not_normalised_by_a_final_norm():
    # The last block's output has to be that of the other blocks' kind: a backbone as in pretraining has no norm.
    backbone = tiny_beit(**BACKBONE)
    assert isinstance(backbone.norm, torch.nn.Identity)
    assert backbone.fc_norm is None


def test_initial_weights_are_the_official_ones():
    model = classifier()
    weights = torch.cat([fc.weight.flatten() for fc in model.head.classifiers])
    assert abs(weights.std() - 0.01) < 1e-3
    assert all((fc.bias == 0).all() for fc in model.head.classifiers)


def test_training_changes_the_head_only_and_keeps_the_backbone_in_eval_mode():
    model = classifier()
    before = copy.deepcopy(model.state_dict())
    optim_wrapper = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=1e-1))
    )
    model.train()
    assert not any(module.training for name, module in model.backbone.named_modules() if name.startswith('blocks.'))
    data = dict(inputs=torch.randint(256, (4, 3, 32, 32)), data_samples=samples(0, 1, 2, 3))
    losses = [model.train_step(data, optim_wrapper)['loss'].item() for _ in range(5)]
    assert losses[-1] < losses[0]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name, _ in model.named_parameters() if name.startswith('head.')}


def test_autograd_keeps_nothing_of_the_backbone():
    model = classifier().train()
    images = torch.randn(2, 3, 32, 32)
    assert not any(feature.requires_grad for feature in model.extract_feat(images))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(tuple(x.shape)) or x, lambda x: x):
        model.loss(images, samples(0, 1))
    assert saved
    assert not any(len(shape) == 3 and shape[-1] in (24, 72, 96) for shape in saved), 'tokens were kept for backward'
    assert max(np.prod(shape) for shape in saved) <= 2 * 24 * NUM_CLASSES


def test_a_backbone_that_is_not_frozen_gets_no_gradient_either():
    backbone, probe = tiny_beit(**{**BACKBONE, 'frozen_stages': -1}), head()
    probe.loss(backbone(torch.randn(2, 3, 32, 32)), samples(0, 1))['loss'].backward()
    assert all(p.grad is None for p in backbone.parameters())
    assert all(p.grad is not None for p in probe.parameters())


class Dtypes(TorchDispatchMode):
    """Collects the dtypes of matrix products."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.addmm.default:
            self.seen.add(out.dtype)
        return out


def test_classifiers_run_in_float32_under_autocast():
    probe, tokens = head(), [torch.randn(2, 17, 24).bfloat16() for _ in range(4)]
    with torch.autocast('cpu', torch.bfloat16), Dtypes() as dtypes:
        assert probe(tokens).dtype == torch.float32
    assert dtypes.seen == {torch.float32}


def test_predictions_name_the_likeliest_classes_of_every_block():
    probe, tokens = head(), [torch.randn(3, 17, 24) for _ in range(4)]
    logits = probe(tokens)
    for given in (None, samples(0, 1, 2)):
        predicted = probe.predict(tokens, given)
        for b, sample in enumerate(predicted):
            torch.testing.assert_close(sample.pred_score, logits[-1, b].softmax(dim=0))
            assert sample.pred_label == logits[-1, b].argmax()
            assert sample.pred_block_labels.tolist() == logits[:, b].argsort(descending=True)[:, :5].tolist()
    assert [int(s.gt_label) for s in predicted] == [0, 1, 2]


def test_pred_label_is_of_the_block_that_is_asked_for():
    probe, tokens = head(), [torch.randn(3, 17, 24) for _ in range(4)]
    probe.block = 1
    assert [int(s.pred_label) for s in probe.predict(tokens)] == probe(tokens)[1].argmax(dim=1).tolist()


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [(dict(block=4), 'block 4 is not one of the 4 blocks'), (dict(block=-5), 'block -5')],
)
def test_wrong_block_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LinearProbeHead(NUM_CLASSES, in_channels=24, num_blocks=4, **kwargs)


def test_wrong_number_of_features_is_refused():
    with pytest.raises(ValueError, match='3 feature maps for num_blocks 4'):
        head()([torch.randn(2, 17, 24)] * 3)


def test_metric_finds_the_best_block():
    # Rows: blocks; right answers are 0. Block 1 is right twice, block 2 once but thrice among two.
    labels = [[[1, 2], [0, 1], [1, 0]], [[0, 1], [0, 2], [2, 0]], [[3, 4], [5, 6], [0, 1]]]
    metric = LinearProbeAccuracy(topk=(1, 2))
    for image in labels:
        metric.process({}, [dict(pred_block_labels=torch.tensor(image), gt_label=torch.tensor([0]))])
    result = metric.evaluate(3)
    assert result['accuracy/block'] == 1
    assert result['accuracy/top1'] == pytest.approx(200 / 3)
    assert result['accuracy/top2'] == pytest.approx(200 / 3), 'of the block that is best at top 1'
    assert result['accuracy/block2_top2'] == pytest.approx(100)
    assert [result[f'accuracy/block{i}_top1'] for i in range(3)] == pytest.approx([100 / 3, 200 / 3, 100 / 3])


def test_metric_agrees_with_the_model():
    model = classifier().eval()
    data = dict(inputs=torch.randint(256, (8, 3, 32, 32)), data_samples=samples(*range(7), 0))
    predicted = model.test_step(data)
    logits = model.head(model.extract_feat(model.data_preprocessor(data)['inputs']))
    metric = LinearProbeAccuracy(topk=(1, 5))
    metric.process(data, [sample.to_dict() for sample in predicted])
    result = metric.evaluate(8)
    right = logits.argmax(dim=2) == torch.tensor([*range(7), 0])
    expected = 100 * right.float().mean(dim=1)
    assert [result[f'accuracy/block{i}_top1'] for i in range(4)] == pytest.approx(expected.tolist())
    assert result['accuracy/top1'] == pytest.approx(float(expected.max()))


def test_metric_refuses_predictions_with_too_few_classes():
    metric = LinearProbeAccuracy(topk=(1, 5))
    with pytest.raises(ValueError, match='hold 3 classes'):
        metric.process({}, [dict(pred_block_labels=torch.zeros(4, 3), gt_label=torch.tensor([0]))])
