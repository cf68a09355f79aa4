"""Images and texts that are compared, in one process and in two."""

import math
from functools import partial

import pytest
import torch
from builders_beit3 import SIZES, TINY, images, samples, task_cfg, tiny_task
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from processes import run_ranks
from torch.utils.data import Dataset

close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
CAPTIONS = (2, 1, 3, 2, 1)  # of each of five images


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return tiny_task('retrieval')


@torch.no_grad()
def test_features_are_projections_of_length_1_of_class_token_and_bos(model):
    x, data = images(), samples(7, 4)
    feats = model(x, data)
    for i, sample in enumerate(data):
        vision = model.backbone.encode(x[i : i + 1]).vision[0, 0] @ model.head.proj['vision'].weight.T
        text = model.backbone.encode(text_ids=torch.tensor([sample.text_ids])).text[0, 0]
        text = text @ model.head.proj['text'].weight.T
        close(feats['image_feat'][i], vision / vision.norm())
        close(feats['text_feat'][i], text / text.norm())


def test_loss_is_the_cross_entropy_of_either_way(model):
    x, data = images(batch=3), samples(7, 4, 5)
    feats = model(x, data)
    logits = model.head.logit_scale.exp() * feats['image_feat'] @ feats['text_feat'].T
    i2t = -logits.log_softmax(dim=1).diagonal().mean()
    t2i = -logits.log_softmax(dim=0).diagonal().mean()
    losses = model(x, data, mode='loss')
    close(losses['loss'], (i2t + t2i) / 2)
    right = [(logits.argmax(dim=dim) == torch.arange(3)).float().mean() for dim in (0, 1)]
    close(losses['accuracy'], 50 * sum(right))


def test_every_parameter_is_trained():
    model = tiny_task('retrieval').train()
    model(images(), samples(7, 4), mode='loss')['loss'].backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad and parameter.grad is not None, name


def test_temperature_starts_officially_and_is_not_bounded():
    model = MODELS.build(task_cfg('retrieval', **{**SIZES, 'arch': dict(TINY)}))
    model.init_weights()
    head = model.head
    assert head.logit_scale.item() == pytest.approx(math.log(1 / 0.07)) == pytest.approx(2.659260, abs=1e-6)
    weight = head.proj['text'].weight
    assert 0.01 < weight.abs().max() <= 0.02 and not torch.equal(weight, head.proj['vision'].weight)
    with torch.no_grad():
        head.logit_scale.fill_(20.0)
    tokens = {'vision': torch.eye(24)[:2], 'text': torch.eye(24)[:2]}
    assert head.loss(tokens)['loss'].isfinite() and head.logit_scale.item() == 20


def test_wrong_modes_are_refused(model):
    with pytest.raises(ValueError, match="mode 'train' is not one of"):
        model(images(), samples(7, 4), mode='train')
    with pytest.raises(ValueError, match='a sample has no text_ids'):
        model(images(), [DataSample(), DataSample()], mode='loss')


# ---- several processes ----

TRAIN = """
import builders_beit3
from mmengine.registry import DefaultScope
from torch.nn.parallel import DistributedDataParallel
with DefaultScope.overwrite_default_scope('mmpretrain'):
    model = builders_beit3.tiny_task('retrieval').train()
images, data, state = torch.load(folder / 'batch.pth', weights_only=False)
model.load_state_dict(state)
ddp = DistributedDataParallel(model)
mine = slice(3 * rank, 3 * rank + 3)
loss = ddp(images[mine], data[mine], mode='loss')['loss']
loss.backward()
grads = {name: p.grad for name, p in model.named_parameters()}
torch.save((loss.detach(), grads), folder / f'{rank}.pth')
"""


def test_two_ranks_have_the_loss_and_the_gradient_of_one_with_the_global_batch(model, tmp_path):
    x, data = images(batch=6), samples(7, 4, 5, 3, 9, 6)
    torch.save((x, data, model.state_dict()), tmp_path / 'batch.pth')
    run_ranks(TRAIN, 2, tmp_path)
    (first, grads), (second, others) = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    model.zero_grad()
    loss = model(x, data, mode='loss')['loss']
    loss.backward()
    close((first + second) / 2, loss.detach())
    assert abs(first - second) > 1e-3  # each scores its own
    for name, parameter in model.named_parameters():
        assert torch.equal(grads[name], others[name])
        close(grads[name], parameter.grad, msg=lambda text, name=name: f'{name}: {text}')
    model.zero_grad()


def pairs():
    """Five images with one to three captions each, as mmpretrain's COCORetrieval has them to evaluate."""
    torch.manual_seed(3)
    data, text_id = [], 0
    for image_id, count in enumerate(CAPTIONS):
        ids = [sample.text_ids for sample in samples(*range(3, 3 + count))]
        sample = DataSample(text_ids=ids, text=[f'{image_id}.{i}' for i in range(count)])
        sample.set_field([*range(text_id, text_id + count)], 'gt_text_id')
        sample.set_field([image_id] * count, 'gt_image_id')
        sample.set_field(image_id, 'image_id', field_type='metainfo')
        data.append(sample)
        text_id += count
    return images(batch=len(CAPTIONS)), data


def check_predictions(i2t, t2i, scores):
    """Scores of texts for images, and of images for texts."""
    owners = [image for image, count in enumerate(CAPTIONS) for _ in range(count)]
    assert len(i2t) == 5 and len(t2i) == 9
    for image, sample in enumerate(i2t):
        close(sample.pred_score, scores[image])
        assert sample.pred_label == scores[image].argmax()
        assert sample.gt_label.tolist() == [text for text, owner in enumerate(owners) if owner == image]
    for text, sample in enumerate(t2i):
        close(sample.pred_score, scores[:, text])
        assert sample.pred_label == scores[:, text].argmax() and sample.gt_label.tolist() == [owners[text]]
        assert sample.text.startswith(f'{owners[text]}.')


@torch.no_grad()
def test_predictions_of_one_process(model):
    x, data = pairs()
    feats = model(x, data)
    assert feats['image_feat'].shape == (5, 24) and feats['text_feat'].shape == (9, 24)
    scores = feats['image_feat'] @ feats['text_feat'].T
    check_predictions(*model.predict_all(feats, data, num_images=5, num_texts=9), scores)
    check_predictions(*model(x, data, mode='predict'), scores)


EVALUATE = """
import builders_beit3
from mmengine.registry import DefaultScope
with DefaultScope.overwrite_default_scope('mmpretrain'):
    model = builders_beit3.tiny_task('retrieval')
images, data, state = torch.load(folder / 'batch.pth', weights_only=False)
model.load_state_dict(state)
for name, shares in dict(strided=([0, 2, 4], [1, 3, 0]), contiguous=([0, 1, 2], [3, 4, 0])).items():
    mine = [data[i].new() for i in shares[rank]]
    with torch.no_grad():
        feats = model(images[shares[rank]], mine)
        found = model.predict_all(feats, mine, num_images=5, num_texts=9)
    torch.save(found, folder / f'{name}{rank}.pth')
"""


@pytest.fixture(scope='module')
def evaluated(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    torch.save((*pairs(), model.state_dict()), folder / 'batch.pth')
    run_ranks(EVALUATE, 2, folder)
    return folder


@pytest.mark.parametrize('sampler', ['strided', 'contiguous'])
@torch.no_grad()
def test_predictions_of_two_processes_are_those_of_one(model, evaluated, sampler):
    """Each has three of five images, one of them twice."""
    feats = model(*pairs())
    parts = [torch.load(evaluated / f'{sampler}{rank}.pth', weights_only=False) for rank in (0, 1)]
    i2t = sorted(parts[0][0] + parts[1][0], key=lambda sample: sample.image_id)
    t2i = sorted(parts[0][1] + parts[1][1], key=lambda sample: sample.text)
    check_predictions(i2t, t2i, feats['image_feat'] @ feats['text_feat'].T)


# ---- with mmpretrain ----


class Pairs(Dataset):
    img_size, text_size = len(CAPTIONS), sum(CAPTIONS)

    def __init__(self):
        self.images, self.samples = pairs()

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        return {'inputs': self.images[i], 'data_samples': self.samples[i]}


@torch.no_grad()
def test_evaluation_by_the_loop_and_the_metric_of_mmpretrain(model, tmp_path):
    data = Pairs()
    sampler, collate = dict(type='DefaultSampler', shuffle=False), dict(type='default_collate')
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        test_dataloader=dict(batch_size=2, dataset=data, sampler=sampler, collate_fn=collate),
        test_evaluator=dict(type='RetrievalRecall', topk=(1, 3)),
        test_cfg=dict(type='RetrievalTestLoop'),
        default_scope='mmpretrain',
        default_hooks=dict(logger=None),
        log_level='ERROR',
        experiment_name='retrieval',
    )
    metrics = runner.test()
    feats = model(data.images, data.samples)
    scores = feats['image_feat'] @ feats['text_feat'].T
    owners = torch.tensor([image for image, count in enumerate(CAPTIONS) for _ in range(count)])
    for k in (1, 3):
        texts, found = scores.topk(k, dim=1).indices, scores.topk(k, dim=0).indices
        expected = {
            'i2t': sum((owners[row] == i).any().item() for i, row in enumerate(texts)) / 5,
            't2i': sum(owners[i].item() in column.tolist() for i, column in enumerate(found.T)) / 9,
        }
        for way, recall in expected.items():
            assert metrics[f'{way}/retrieval/Recall@{k}'] == pytest.approx(100 * recall)


@torch.no_grad()
def test_searching_a_prepared_pool_as_inferencers_of_mmpretrain_do(model):
    x, data = images(), samples(7, 4)
    pool = model.extract_feat(images=x)
    assert pool.keys() == {'image_feat'} == model(x, [DataSample()] * 2, mode='tensor').keys()
    (found,) = model.predict_all({**pool, **model.extract_feat(data_samples=data)}, data, cal_i2t=False)
    scores = model(x, data)['text_feat'] @ pool['image_feat'].T
    close(torch.stack([sample.pred_score for sample in found]), scores)
    pool = model(None, data, mode='tensor')
    assert pool.keys() == {'text_feat'}
    (found,) = model.predict_all({**pool, **model.extract_feat(images=x)}, None, cal_t2i=False)
    close(torch.stack([sample.pred_score for sample in found]), scores.T)
