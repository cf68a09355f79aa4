"""Answers to questions about pictures."""

import os
from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import nn

from mmbeit.apis.inferencer import Place
from mmbeit.apis.texts import TextInferencer
from mmbeit.models.algorithms.vision_language import FusionEncoder
from mmbeit.models.heads.fusion import VQAHead, read_answers


class VisualQuestionAnsweringInferencer(TextInferencer):
    """Answers to questions about pictures.

    A result is a dict: `question`; `pred_answer`, where the answers are known; `pred_label` and `pred_score`, the
    likeliest answer and its probability; and `pred_scores` (K,), a float32 array with those of all answers, several of
    which may be right.

    Args:
        model, pretrained, device, data, tokenizer, overrides: See :class:`mmbeit.apis.texts.TextInferencer`.
        answers: What the labels mean: a file of the official form (`answer2label.txt`) or a list; by default what the
            head knows.
    """

    def __init__(self, *args: Any, answers: str | os.PathLike | Sequence[str] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        count = self.model.head.fc2.out_features
        self.answers = read_answers(answers) if isinstance(answers, (str, os.PathLike)) else answers
        self.answers = self.answers or self.model.head.answers
        if self.answers is not None and len(self.answers) != count:
            raise ValueError(f'{len(self.answers)} answers for a model of {count}')

    @staticmethod
    def fits(model: nn.Module) -> bool:
        return isinstance(model, FusionEncoder) and isinstance(model.head, VQAHead)

    def __call__(self, inputs: Any, questions: str | Sequence[str], batch_size: int = 8) -> Any:
        """Answer.

        Args:
            inputs: A picture, a list of pictures, or a folder.
            questions: One for all, or a list with one for each picture. To ask several about one picture, give it as
                often.
            batch_size: How many run at once.

        Raises:
            ValueError: There are more or fewer questions than pictures, or an empty one.
        """
        if not isinstance(questions, str):
            if self.is_one(inputs) or len(questions) != len(inputs):
                count = len(inputs) if isinstance(inputs, (list, tuple)) else 1
                raise ValueError(f'{len(questions)} questions for {count} pictures: expected one, or one for each')
            for question in questions:
                self.sample(question)  # an empty one is found before anything runs
        return super().__call__(inputs, batch_size, questions=questions)

    def predict(self, images: list[Image.Image], places: list[Place], questions: str | Sequence[str]) -> list[dict]:
        asked = [questions if isinstance(questions, str) else questions[place.index] for place in places]
        samples = [self.sample(question) for question in asked]
        results = []
        for question, sample in zip(asked, self.model(self.batch(images), samples, mode='predict'), strict=True):
            scores, label = sample.pred_score.float().cpu(), int(sample.pred_label)
            result = dict(question=question)
            if self.answers is not None:
                result['pred_answer'] = self.answers[label]
            results.append(
                {**result, 'pred_label': label, 'pred_score': float(scores[label]), 'pred_scores': scores.numpy()}
            )
        return results
