"""Whether sentences are true of two pictures."""

from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import nn

from mmbeit.apis.images import ImageError, read_image
from mmbeit.apis.inferencer import Place
from mmbeit.apis.texts import TextInferencer
from mmbeit.models.algorithms.vision_language import FusionEncoder
from mmbeit.models.heads.fusion import NLVRHead


class Statement(NamedTuple):
    """A sentence about two pictures."""

    left: Image.Image
    right: Image.Image
    text: str


class NLVRInferencer(TextInferencer):
    """Whether sentences are true of two pictures.

    An input is a tuple (left picture, right picture, sentence), as of mmpretrain's inferencer, or a list of these. A
    result is a dict: `pred_label`, 1 where the sentence is true, else 0; `pred_score`, the probability of that; and
    `pred_scores` (2,), a float32 array.
    """

    @staticmethod
    def fits(model: nn.Module) -> bool:
        return isinstance(model, FusionEncoder) and isinstance(model.head, NLVRHead)

    @staticmethod
    def is_one(inputs: Any) -> bool:
        return isinstance(inputs, tuple)

    @staticmethod
    def read(source: Any) -> Statement:
        """Read the pictures of an input.

        Raises:
            ImageError: One of them cannot be read, or the input has another form.
        """
        if not isinstance(source, tuple) or len(source) != 3 or not isinstance(source[2], str):
            raise ImageError(f'expected (left picture, right picture, sentence), got {source!r:.100}')
        return Statement(read_image(source[0]), read_image(source[1]), source[2])

    def predict(self, images: list[Statement], places: list[Place]) -> list[dict]:
        pairs = [self.batch([statement[side] for statement in images]) for side in (0, 1)]
        samples = [self.sample(statement.text) for statement in images]
        results = []
        for sample in self.model(torch.stack(pairs, dim=1), samples, mode='predict'):
            scores, label = sample.pred_score.float().cpu(), int(sample.pred_label)
            results.append(dict(pred_label=label, pred_score=float(scores[label]), pred_scores=scores.numpy()))
        return results
