"""The models of the tasks of BEiT-3."""

import json
from functools import partial

import pytest
import torch
from builders import NUM_CLASSES
from builders_beit3 import SIZES, TINY, images, samples, task_cfg, tiny_task
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from test_checkpoint import official_beit3 as official
from torch.nn.functional import gelu, layer_norm

from mmbeit.checkpoint.formats import from_ours, recognize, to_ours
from mmbeit.checkpoint.weights import load_into
from mmbeit.models.heads.fusion import VQAHead, read_answers

close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
exact = partial(torch.testing.assert_close, rtol=0, atol=1e-12)
SMALL = dict(dim=24, depth=3, hidden=48, side=4, patch=8, vocab=20, positions=12)


def scores(n):
    """Soft targets of n questions."""
    return torch.tensor([0, 0.3, 0.6, 0.9, 1])[torch.randint(5, (n, NUM_CLASSES))]


def labels(n):
    return torch.randint(2, (n, 1))


# ---- VQA ----


@torch.no_grad()
def test_vqa_reads_the_class_token_of_the_image():
    model, x, data = tiny_task('vqa').double(), images().double(), samples(7, 4)
    ids, padding = (
        torch.tensor(a) for a in ([data[0].text_ids, data[1].text_ids + [1] * 3], [[0] * 7, [0] * 4 + [1] * 3])
    )
    cls = model.backbone.encode(x, ids, padding_mask=padding.bool()).vision[:, 0]
    neck, head = model.neck, model.head
    pooled = torch.tanh(neck.dense(layer_norm(cls, (24,), neck.norm.weight, neck.norm.bias)))
    hidden = gelu(layer_norm(head.fc1(pooled), (48,), head.norm.weight, head.norm.bias))
    exact(model(x, data), head.fc2(hidden))


def test_vqa_loss_is_the_binary_cross_entropy_of_all_answers_of_a_question():
    model, x, targets = tiny_task('vqa'), images(), scores(2)
    data = samples(7, 4, gt_score=targets)
    p = model(x, data).sigmoid()
    expected = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean() * NUM_CLASSES
    losses = model(x, data, mode='loss')
    assert losses.keys() == {'loss'}
    close(losses['loss'], expected)


@torch.no_grad()
def test_vqa_answers_what_is_most_likely():
    model, x, data = tiny_task('vqa'), images(), samples(7, 4)
    logits = model(x, data)
    out = model(x, data, mode='predict')
    assert out is data and not hasattr(out[0], 'pred_answer')
    model.head.answers = [f'answer {i}' for i in range(NUM_CLASSES)]
    for sample, row in zip(model(x, data, mode='predict'), logits, strict=True):
        close(sample.pred_score, row.sigmoid())
        assert sample.pred_label == row.argmax() and sample.pred_answer == f'answer {row.argmax()}'


def test_answers_are_read_from_the_official_file(tmp_path):
    path = tmp_path / 'answer2label.txt'
    lines = [json.dumps({'answer': answer, 'label': i}) for i, answer in enumerate(('net', 'pitcher', 'café'))]
    path.write_text('\n'.join(lines) + '\n')
    assert read_answers(str(path)) == ['net', 'pitcher', 'café']
    assert VQAHead(8, num_classes=3, answers=str(path)).answers[2] == 'café'
    with pytest.raises(ValueError, match='3 answers for num_classes 4'):
        VQAHead(8, num_classes=4, answers=str(path))
    for second in (lines[0], 'pitcher', '[1]', '{"label": 1}'):
        path.write_text('\n'.join([lines[0], second]))
        with pytest.raises(ValueError, match=f'{path}, line 2: expected an answer with label 1'):
            read_answers(str(path))
    with pytest.raises(FileNotFoundError, match='no such file of answers'):
        read_answers(str(tmp_path / 'none.txt'))


# ---- NLVR2 ----


@torch.no_grad()
def test_nlvr2_reads_class_token_and_bos_of_one_image_after_the_other():
    model, pairs = tiny_task('nlvr2').double(), torch.stack([images(), images()], dim=1).double()
    data = samples(7, 4)
    parts = []
    for i in range(2):
        for sample, pair in zip(data, pairs, strict=True):
            out = model.backbone.encode(pair[i : i + 1], torch.tensor([sample.text_ids]))
            parts.append(torch.cat([out.vision[:, 0], out.text[:, 0]], dim=1))
    feats = torch.cat([torch.cat(parts[:2]), torch.cat(parts[2:])], dim=1)
    exact(model.extract_feat(pairs, data), feats)
    head = model.head
    hidden = head.fc1(layer_norm(feats, (96,), head.norm1.weight, head.norm1.bias))
    hidden = gelu(layer_norm(hidden, (48,), head.norm2.weight, head.norm2.bias))
    exact(model(pairs, data), head.fc2(hidden))


def test_nlvr2_loss_accuracy_and_prediction():
    model, pairs = tiny_task('nlvr2'), torch.stack([images(), images()], dim=1)
    model.head.fc2 = torch.nn.Linear(48, 2)
    targets = labels(2)
    data = samples(7, 4, gt_label=targets)
    logits = model(pairs, data)
    losses = model(pairs, data, mode='loss')
    close(losses['loss'], -logits.log_softmax(dim=1).gather(1, targets).mean())
    assert losses['accuracy'] == 100 * (logits.argmax(dim=1) == targets[:, 0]).float().mean()
    for sample, row in zip(model(pairs, data, mode='predict'), logits, strict=True):
        close(sample.pred_score, row.softmax(dim=0))
        assert sample.pred_label == row.argmax()


# ---- both ----


def inputs(task, batch=2):
    return images(batch=batch) if task == 'vqa' else torch.stack([images(batch=batch), images(batch=batch)], dim=1)


@pytest.mark.parametrize('task', ['vqa', 'nlvr2'])
@torch.no_grad()
def test_who_else_is_in_the_batch_does_not_matter(task):
    model, x, data = tiny_task(task).double(), inputs(task, 3).double(), samples(7, 4, 9)
    whole = model(x, data)
    for i in range(3):
        exact(model(x[i : i + 1], data[i : i + 1]), whole[i : i + 1])


@pytest.mark.parametrize('task', ['vqa', 'nlvr2'])
def test_every_parameter_that_is_trained_gets_a_gradient(task):
    """So that DDP need not look for those that do not."""
    model = tiny_task(task).train()
    data = samples(7, 4, gt_score=scores(2), gt_label=labels(2))
    model(inputs(task), data, mode='loss')['loss'].backward()
    frozen = 0
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        frozen += not parameter.requires_grad
    assert frozen == (14 if task == 'vqa' else 0)


def test_wrong_modes_and_samples_without_text_are_refused():
    model = tiny_task('vqa')
    with pytest.raises(ValueError, match="mode 'train' is not one of"):
        model(images(), samples(7, 4), mode='train')
    with pytest.raises(ValueError, match='a sample has no text_ids: does the pipeline make it'):
        model(images(), [DataSample(), DataSample()])


def test_the_data_preprocessor_is_that_of_mmpretrain():
    cfg = task_cfg('vqa', **{**SIZES, 'arch': dict(TINY)})
    model = MODELS.build({**cfg, 'data_preprocessor': dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)})
    pixels, data = torch.randint(256, (2, 3, 32, 32)), samples(7, 4)
    out = model.data_preprocessor({'inputs': pixels, 'data_samples': data})
    close(out['images'], pixels.flip(1) / 127.5 - 1)
    assert [sample.text_ids for sample in out['data_samples']] == [sample.text_ids for sample in data]


def test_heads_are_initialised_as_officially():
    vqa, nlvr2 = (MODELS.build(task_cfg(task, **{**SIZES, 'arch': dict(TINY)})) for task in ('vqa', 'nlvr2'))
    for model in (vqa, nlvr2):
        model.init_weights()
    linear = [(vqa.neck.dense, 1), (vqa.head.fc1, 1), (vqa.head.fc2, 1), (nlvr2.head.fc1, 1e-3), (nlvr2.head.fc2, 1e-3)]
    for layer, scale in linear:
        assert 0.5 * 0.02 * scale < layer.weight.abs().max() <= 0.02 * scale
        assert layer.weight.std().item() == pytest.approx(0.0108 * scale, rel=0.2) and (layer.bias == 0).all()


# ---- weights ----

OFFICIAL = {
    'classifier': official.classifier,
    'vqa': official.vqa,
    'nlvr2': official.nlvr2,
    'captioner': official.captioner,
    'pretraining': official.pretraining,
    'retrieval': official.retrieval,
}


@pytest.mark.parametrize('arch', ['base', 'large'])
@pytest.mark.parametrize('task', OFFICIAL)
def test_official_files_are_of_our_models(task, arch):
    sizes = dict(base=dict(), large=dict(dim=1024, depth=24))[arch]
    with torch.device('meta'):
        model = MODELS.build(task_cfg(task, arch=arch, mask_token=True))
        state = {key: torch.empty(shape) for key, shape in OFFICIAL[task](**sizes).items()}
    ours, found = to_ours(state)
    assert found.kind == f'beit3_{task}'
    expected = {key: value.shape for key, value in model.state_dict().items() if not key.endswith('pos_grid')}
    assert {key: value.shape for key, value in ours.items()} == expected


@pytest.mark.parametrize('task', OFFICIAL)
def test_models_become_official_files_and_come_back(task, tmp_path):
    model = tiny_task(task, mask_token=True)
    state, table = from_ours(model.state_dict(), 'official')
    assert table.kind == recognize(model.state_dict()).kind == f'beit3_{task}'
    torch.save({'model': state}, tmp_path / 'weights.pth')
    other = tiny_task(task, mask_token=True)
    report = load_into(other, tmp_path / 'weights.pth')
    assert not report.dropped and report.fresh in ([], ['backbone.pos_grid'])
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


@pytest.mark.parametrize('task', ['classifier', 'vqa', 'nlvr2', 'retrieval'])
def test_tasks_start_from_the_encoder_of_pretraining_and_say_what_they_leave(task, tmp_path):
    state = {key: torch.randn(shape) for key, shape in official.pretraining(**SMALL, codes=11).items()}
    path = tmp_path / 'weights.pth'
    torch.save({'model': state}, path)
    model, lines = tiny_task(task), []
    head = {key: value.clone() for key, value in model.head.state_dict().items()}
    load_into(model, path, log=lines.append)
    assert torch.equal(model.backbone.text_embed.weight, state['beit3.text_embed.weight'])
    assert all(torch.equal(value, head[key]) for key, value in model.head.state_dict().items())
    assert lines == [f'{path}: {part} is not loaded, the model has none' for part in ('mlm_head', 'mim_head')]


# Model, exact number of parameters, and the millions that are published, rounded.
PARAMETERS = [
    ('classifier', dict(arch='base', modalities='vision', mask_token=True), 86_662_120, 87),
    ('classifier', dict(arch='large', modalities='vision', mask_token=True), 304_575_464, 305),
    ('classifier', dict(arch='base', modalities='vision'), 86_661_352, 87),
    ('classifier', dict(arch='large', modalities='vision'), 304_574_440, 305),
    ('classifier', dict(arch='base', mask_token=True), 221_754_856, None),
    ('classifier', dict(arch='large', mask_token=True), 673_725_416, None),
    ('vqa', dict(arch='base', img_size=384, mask_token=True), 227_861_817, None),
    ('vqa', dict(arch='base', img_size=480, mask_token=True), 228_110_649, 228),
    ('vqa', dict(arch='base', img_size=480), 228_110_649 - 768, 228),
    ('vqa', dict(arch='large', img_size=384, mask_token=True), 682_653_753, None),
    ('vqa', dict(arch='large', img_size=480, mask_token=True), 682_985_529, 683),
    ('vqa', dict(arch='large', img_size=768, mask_token=True), 684_423_225, 684),
    ('nlvr2', dict(arch='base', mask_token=True), 225_719_810, 226),
    ('nlvr2', dict(arch='large', mask_token=True), 681_109_506, 681),
    ('captioner', dict(arch='base', mask_token=True), 270_211_082, None),
    ('captioner', dict(arch='base', img_size=480, mask_token=True), 270_751_754, 271),
    ('captioner', dict(arch='large', img_size=480, mask_token=True), 739_033_610, 739),
    ('retrieval', dict(arch='base', mask_token=True), 222_167_041, 222),  # -itc
    ('retrieval', dict(arch='base', img_size=384, mask_token=True), 222_458_881, 222),
    ('retrieval', dict(arch='large', img_size=384, mask_token=True), 675_188_737, 675),
]


@pytest.mark.parametrize(('task', 'backbone', 'exact_number', 'millions'), PARAMETERS)
def test_parameters_of_official_models(task, backbone, exact_number, millions):
    with torch.device('meta'):
        model = MODELS.build(task_cfg(task, **backbone))
    number = sum(p.numel() for p in model.parameters())
    assert number == exact_number
    assert millions is None or round(number / 1e6) == millions


@pytest.mark.parametrize(
    ('task', 'arch', 'exact_number', 'millions'),
    [
        ('pretraining', 'base', 276_510_730, 276),  # and its -indomain
        ('pretraining', 'large', 746_709_514, 746),
        ('retrieval', 'base', 222_167_041, 222),  # -itc
        ('retrieval', 'large', 674_799_617, 674),
    ],
)
def test_parameters_of_pretraining_are_published_without_their_fraction(task, arch, exact_number, millions):
    with torch.device('meta'):
        model = MODELS.build(task_cfg(task, arch=arch, mask_token=True))
    number = sum(p.numel() for p in model.parameters())
    assert number == exact_number and number // 1_000_000 == millions


# ---- classification ----


def test_classification_by_vision_alone_trains_and_holds_nothing_else():
    model = tiny_task('classifier', modalities='vision').train()
    data = [DataSample().set_gt_label(i) for i in (1, 4)]
    losses = model(images(), data, mode='loss')
    losses['loss'].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and 'text' not in name, name
    feats = model.backbone.encode(images(batch=1)).vision
    assert feats.shape == (1, 17, 24)


@torch.no_grad()
def test_classification_does_not_depend_on_the_text_in_the_encoder():
    whole = tiny_task('classifier')
    vision = tiny_task('classifier', modalities='vision')
    vision.load_state_dict(whole.state_dict(), strict=True)
    x = images(48, 24)
    assert torch.equal(vision(x), whole(x))
