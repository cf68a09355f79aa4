"""Scores of answers, against the official rules."""

import json
import random
from collections import Counter

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample

from mmbeit.answers import process_punctuation, process_words
from mmbeit.evaluation.vqa import vqa_accuracy

POOL = [
    'yes',
    'Yes',
    'yes.',
    'no',
    'two',
    '2',
    'the dog',
    'dog',
    'a dog!',
    't-shirt',
    '1,000',
    'dont',
    'new\nyork',
    ' x ',
]


def official(answer: str, given: list[str]) -> float:
    """The rules as they are published: each person is left out once, three of the others are enough."""
    answer = answer.replace('\n', ' ').replace('\t', ' ').strip()
    given = [other.replace('\n', ' ').replace('\t', ' ').strip() for other in given]
    if len(set(given)) > 1:
        given = [process_words(process_punctuation(other)) for other in given]
        answer = process_words(process_punctuation(answer))
    accuracies = []
    for left_out in range(len(given)):
        same = sum(other == answer for i, other in enumerate(given) if i != left_out)
        accuracies.append(min(1, same / 3))
    return sum(accuracies) / len(accuracies)


def test_accuracy_leaves_everybody_out_once():
    draw = random.Random(0)
    for _ in range(3000):
        pool = draw.sample(POOL, draw.randint(1, 6))
        given, answer = draw.choices(pool, k=10), draw.choice(POOL)
        assert vqa_accuracy(answer, Counter(given)) == pytest.approx(official(answer, given), abs=1e-12)


@pytest.mark.parametrize(('same', 'accuracy'), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_accuracy_of_an_answer_by_how_many_gave_it(same, accuracy):
    assert vqa_accuracy('red', {'red': same, 'blue': 10 - same} if same < 10 else {'red': 10}) == pytest.approx(
        accuracy
    )


def test_answers_are_not_normalised_where_all_agree():
    assert vqa_accuracy('two', {'2': 10}) == 0 and vqa_accuracy('two', {'2': 9, 'x': 1}) == 1
    assert vqa_accuracy('Red', {'red': 10}) == 0 and vqa_accuracy(' red\n', {'red\t': 10}) == 1


def samples() -> list[DataSample]:
    data = []
    for answer, given, weights, kind, label, scores in (
        ('red', ['red', 'blue'], [0.3, 0.7], 'other', 0, [0.9, 1.0]),
        ('yes', ['yes'], [1.0], 'yes/no', 1, [0.0, 1.0]),
        ('no', ['yes'], [1.0], 'yes/no', 0, [0.0, 0.0]),
    ):
        sample = DataSample(gt_answer=given, gt_answer_weight=weights, answer_type=kind, pred_answer=answer)
        data.append(sample.set_pred_label(label).set_gt_score(torch.tensor(scores)))
        sample.set_field(len(data), 'question_id')
    return data


def test_metric_has_all_answers_and_each_type():
    evaluator = Evaluator([dict(type='mmbeit.VQAAccuracy'), dict(type='mmbeit.VQAScore'), dict(type='VQAAcc')])
    evaluator.process(samples())
    metrics = evaluator.evaluate(3)
    assert metrics.pop('VQA/acc') == pytest.approx(100 * 2 / 3)
    assert metrics == pytest.approx(
        {
            'vqa/accuracy': 100 * 1.9 / 3,
            'vqa/accuracy_other': 90.0,
            'vqa/accuracy_yes/no': 50.0,
            'vqa/score': 95.0,  # the third question has no answer of the vocabulary
        }
    )


def test_one_answer_counts_as_if_all_had_given_it():
    evaluator = Evaluator(dict(type='mmbeit.VQAAccuracy'))
    evaluator.process([dict(pred_answer='red', gt_answer=['red']), dict(pred_answer='x', gt_answer=['red'])])
    assert evaluator.evaluate(2) == {'vqa/accuracy': 50.0}


def test_score_without_a_question_that_can_be_answered_is_no_number():
    evaluator = Evaluator(dict(type='mmbeit.VQAScore'))
    evaluator.process([samples()[2]])
    assert np.isnan(evaluator.evaluate(1)['vqa/score'])


def test_a_head_without_answers_is_told_so():
    evaluator = Evaluator(dict(type='mmbeit.VQAAccuracy'))
    with pytest.raises(ValueError, match='no pred_answer: give the head the file of the `answers`'):
        evaluator.process([dict(gt_answer=['red'])])


def test_submission_is_what_evalai_wants(tmp_path):
    path = tmp_path / 'vqa.json'
    evaluator = Evaluator(dict(type='ReportVQA', file_path=str(path)))
    evaluator.process(samples())
    evaluator.evaluate(3)
    answers = [('red', 1), ('yes', 2), ('no', 3)]
    assert json.loads(path.read_text()) == [dict(question_id=i, answer=answer) for answer, i in answers]
