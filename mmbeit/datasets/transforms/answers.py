"""From what people answered to what a model learns."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from mmbeit.answers import read_answers
from mmbeit.registry import TRANSFORMS

NUM_PEOPLE = 10
SCORES = (0.0, 0.3, 0.6, 0.9)  # of an answer that 0 to 3 of ten people gave; from the fourth on it is 1


@TRANSFORMS.register_module()
class ScoreAnswers(BaseTransform):
    """How right each class is as an answer (unilm:beit3/datasets.py).

    Reads `gt_answer`, the different answers as they were given, and `gt_answer_weight`, the share of the people who
    gave each, all the same where it is missing. Adds `gt_score` (K,) float32: 0.3, 0.6, 0.9 or 1 for an answer that
    one, two, three, or four or more of ten people gave. Answers that are no class do not count, nor, as officially, do
    those that would become one if they were normalised.

    Args:
        answers: What the classes are: a file (:func:`mmbeit.answers.read_answers`) or a list.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is malformed.
    """

    def __init__(self, answers: str | Sequence[str]):
        answers = read_answers(answers) if isinstance(answers, str) else answers
        self.labels = {answer: label for label, answer in enumerate(answers)}

    def transform(self, results: dict) -> dict:
        answers = results['gt_answer']
        weights = results.get('gt_answer_weight', [1 / len(answers)] * len(answers))
        scores = np.zeros(len(self.labels), dtype=np.float32)
        for answer, weight in zip(answers, weights, strict=True):
            if answer in self.labels:
                votes = round(NUM_PEOPLE * weight)
                scores[self.labels[answer]] = SCORES[votes] if votes < len(SCORES) else 1.0
        results['gt_score'] = scores
        return results
