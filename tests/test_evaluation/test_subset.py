from pathlib import Path

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS
from torch import nn

from mmbeit.evaluation import SubsetAccuracy
from mmbeit.evaluation.subset import SUBSETS


@pytest.mark.parametrize('name', ['a', 'r'])
def test_classes_are_those_of_timm_in_the_order_of_their_folders(name):
    timm = pytest.importorskip('timm')
    info = Path(timm.__file__).parent / 'data' / '_info'
    wordnet_ids = (info / 'imagenet_synsets.txt').read_text().split()
    folders = sorted((info / f'imagenet_{name}_synsets.txt').read_text().split())
    assert len(wordnet_ids) == 1000 and wordnet_ids == sorted(wordnet_ids)
    assert [wordnet_ids[i] for i in SUBSETS[f'imagenet-{name}']] == folders
    assert len(folders) == 200


def samples_of(scores, labels):
    from mmpretrain.structures import DataSample

    return [DataSample().set_pred_score(score).set_gt_label(label) for score, label in zip(scores, labels, strict=True)]


def evaluate(metric, scores, labels, num_classes=None):
    evaluator = Evaluator(metrics=metric)
    if num_classes:
        evaluator.dataset_meta = dict(classes=tuple(f'n{i}' for i in range(num_classes)))
    for start in range(0, len(scores), 7):  # the last batch is a smaller one
        evaluator.process(samples_of(scores[start : start + 7], labels[start : start + 7]))
    return evaluator.evaluate(len(scores))


def test_accuracy_is_that_of_a_classifier_with_the_rows_of_the_subset_alone():
    classes, features, labels = [1, 3, 4, 8], torch.randn(60, 5), torch.randint(4, (60,))
    head, small = nn.Linear(5, 10), nn.Linear(5, 4)
    small.load_state_dict({key: value[classes] for key, value in head.state_dict().items()})
    accuracy = METRICS.build(dict(type='mmpretrain.Accuracy', topk=(1, 2)))
    expected = evaluate(accuracy, small(features).softmax(1), labels)
    metric = SubsetAccuracy(classes=classes, topk=(1, 2))
    found = evaluate(metric, head(features).softmax(1), labels, num_classes=4)
    assert found == pytest.approx(expected)
    assert list(found) == ['accuracy/top1', 'accuracy/top2'] and 0 < found['accuracy/top1'] < 100


def test_imagenet_r_of_a_classifier_of_imagenet():
    labels = torch.randint(200, (20,))
    scores = torch.rand(20, 1000)
    scores[:, 0] = 2  # no class of it: does not count
    scores[range(20), [SUBSETS['imagenet-r'][label] for label in labels]] = 1.5
    metric = METRICS.build(dict(type='mmbeit.SubsetAccuracy', classes='imagenet-r', topk=1))
    assert evaluate(metric, scores, labels, num_classes=200) == {'accuracy/top1': 100}
    assert evaluate(metric, scores, (labels + 1) % 200, num_classes=200) == {'accuracy/top1': 0}


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"classes 'imagenet-s' is not one of \('imagenet-a', 'imagenet-r'\)"):
        SubsetAccuracy(classes='imagenet-s')
    with pytest.raises(ValueError, match=r'topk \(1, 5\) of 3 classes'):
        SubsetAccuracy(classes=[1, 2, 3])
    scores, labels = torch.rand(2, 10), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match=r'the data set has 3 classes \(folders\), where 2 are expected'):
        evaluate(SubsetAccuracy(classes=[1, 2], topk=1), scores, labels, num_classes=3)
    with pytest.raises(ValueError, match='class 10 of predictions that hold 10 classes'):
        evaluate(SubsetAccuracy(classes=[1, 10], topk=1), scores, labels)
