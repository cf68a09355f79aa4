"""Captions of pictures."""

from PIL import Image
from torch import nn

from mmbeit.apis.inferencer import Place
from mmbeit.apis.texts import TextInferencer
from mmbeit.models.algorithms.vision_language import Captioner


class ImageCaptionInferencer(TextInferencer):
    """Captions of pictures, by beam search.

    A result is a dict: `pred_caption`, and `pred_score`, the log probability of the caption over its length to the
    power of the model's length penalty.
    """

    @staticmethod
    def fits(model: nn.Module) -> bool:
        return isinstance(model, Captioner)

    def predict(self, images: list[Image.Image], places: list[Place]) -> list[dict]:
        return [
            dict(pred_caption=self.tokenizer.decode(found.words), pred_score=found.score)
            for found in self.model.generate(self.batch(images))
        ]
