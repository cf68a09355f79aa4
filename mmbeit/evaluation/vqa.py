"""Scores of answers to questions about images."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from mmbeit.answers import process_punctuation, process_words
from mmbeit.registry import METRICS

NUM_PEOPLE = 10


def vqa_accuracy(answer: str, votes: dict[str, int]) -> float:
    """How many people said the same, three being enough, averaged over those who are left when one does not count.

    Answers are normalised unless all people said the same (GT-Vision-Lab/VQA:PythonEvaluationTools/vqaEvaluation/
    vqaEval.py).

    Args:
        answer: What is scored.
        votes: How many people gave each answer.

    Returns:
        In [0, 1]; for three of ten 0.9, since for three of these ten one of the three does not count.
    """
    answer, counts = _on_one_line(answer), Counter()
    for given, count in votes.items():
        counts[_on_one_line(given)] += count
    if len(counts) > 1:
        answer, raw, counts = process_words(process_punctuation(answer)), counts, Counter()
        for given, count in raw.items():
            counts[process_words(process_punctuation(given))] += count
    same, everyone = counts[answer], counts.total()
    return (same * min(1, (same - 1) / 3) + (everyone - same) * min(1, same / 3)) / everyone


def _on_one_line(text: str) -> str:
    return text.replace('\n', ' ').replace('\t', ' ').strip()


@METRICS.register_module()
class VQAAccuracy(BaseMetric):
    """The official accuracy of VQAv2, in percent, of all answers and of those of each type.

    Takes samples with `pred_answer`, and of the data set (:class:`mmbeit.datasets.vision_language.VQAv2`) `gt_answer`,
    `gt_answer_weight` and, if there is one, `answer_type`. Gives `accuracy`, and `accuracy_number`, `accuracy_other`
    and `accuracy_yes/no` as far as there are such questions. mmpretrain's `VQAAcc` leaves nobody out, and so has a
    third, two thirds and 1 where this has 0.3, 0.6 and 0.9.
    """

    default_prefix = 'vqa'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Score the answers of a batch.

        Raises:
            ValueError: A sample has no answer: the head does not know what its labels mean.
        """
        for sample in data_samples:
            if sample.get('pred_answer') is None:
                raise ValueError('a prediction has no pred_answer: give the head the file of the `answers`')
            answers = sample['gt_answer']
            weights = sample.get('gt_answer_weight') or [1 / len(answers)] * len(answers)
            votes = {a: round(NUM_PEOPLE * weight) for a, weight in zip(answers, weights, strict=True)}
            self.results.append((vqa_accuracy(sample['pred_answer'], votes), sample.get('answer_type')))

    def compute_metrics(self, results: list[tuple[float, str | None]]) -> dict[str, float]:
        of_type = defaultdict(list)
        for accuracy, kind in results:
            of_type['accuracy'].append(accuracy)
            if kind is not None:
                of_type[f'accuracy_{kind}'].append(accuracy)
        return {name: 100 * float(np.mean(of_type[name])) for name in sorted(of_type)}


@METRICS.register_module()
class VQAScore(BaseMetric):
    """Mean score of the answers that are given, in percent, over the questions that can be answered.

    Takes samples with `pred_label` and the `gt_score` of :class:`mmbeit.datasets.transforms.answers.ScoreAnswers`:
    what the official code validates with (unilm:beit3/engine_for_finetuning.py). Questions all of whose answers are
    outside of the vocabulary do not count. Gives `score`.
    """

    default_prefix = 'vqa'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Score the answers of a batch."""
        for sample in data_samples:
            scores = sample['gt_score']
            best = float(scores[int(sample['pred_label'])]) if scores.max() > 0 else np.nan
            self.results.append(best)

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        counted = [score for score in results if not np.isnan(score)]
        return {'score': 100 * float(np.mean(counted)) if counted else float('nan')}
