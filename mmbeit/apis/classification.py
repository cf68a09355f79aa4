"""Classes of pictures."""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import nn

from mmbeit.apis.inferencer import Inferencer, Place


class ImageClassificationInferencer(Inferencer):
    """Classes of pictures.

    A result is a dict as mmpretrain's: `pred_scores` (K,) float32 array of the classes' probabilities, `pred_label` and
    `pred_score` of the likeliest, and its name, `pred_class`, where the names are known.

    Args:
        model, pretrained, device, data, overrides: See :class:`Inferencer`.
        classes: Names of the classes; by default those of the checkpoint or of the data set of the config.
    """

    def __init__(self, *args: Any, classes: Sequence[str] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.classes = classes or getattr(self.model, '_dataset_meta', {}).get('classes')

    @staticmethod
    def fits(model: nn.Module) -> bool:
        return hasattr(getattr(model, 'head', None), 'predict')

    def predict(self, images: list[Image.Image], places: list[Place]) -> list[dict]:
        results = []
        for sample in self.model(self.batch(images), mode='predict'):
            scores = sample.pred_score.float().cpu()
            label = int(scores.argmax())
            result = dict(pred_scores=scores.numpy(), pred_label=label, pred_score=float(scores[label]))
            if self.classes and len(self.classes) == len(scores):
                result['pred_class'] = self.classes[label]
            results.append(result)
        return results
