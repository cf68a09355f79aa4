"""One call from pictures to results."""

import os
from inspect import signature
from typing import Any

from mmengine.config import Config
from torch import nn

from mmbeit.apis.classification import ImageClassificationInferencer
from mmbeit.apis.inferencer import Inferencer, prepare_model
from mmbeit.apis.segmentation import SegmentationInferencer
from mmbeit.apis.tokens import MaskedImageModelingInferencer

INFERENCERS: tuple[type[Inferencer], ...] = (
    MaskedImageModelingInferencer,
    SegmentationInferencer,
    ImageClassificationInferencer,
)


def inference_model(model: nn.Module | str | os.PathLike | Config, inputs: Any, **options: Any) -> Any:
    """Run a model on pictures, in one call. To run it often, keep an inferencer.

    Args:
        model: A model, or what :func:`mmbeit.get_model` takes.
        inputs: A picture, a list of pictures, or a folder.
        options: Of the inferencer that fits (:class:`mmbeit.ImageClassificationInferencer`,
            :class:`mmbeit.SegmentationInferencer` or :class:`mmbeit.MaskedImageModelingInferencer`), or of its call.

    Returns:
        A result, a list of results, or a dict of results by path, see the inferencer.

    Raises:
        TypeError: No inferencer fits: :class:`mmbeit.FeatureExtractor` is for all. Or the one that fits does not have
            an option.
    """
    calls = {name for kind in INFERENCERS for name in call_options(kind)}
    given = {name: options.pop(name) for name in list(options) if name in calls}
    own = {name: options.pop(name) for name in ('classes', 'data') if name in options}
    model = prepare_model(model, **options)
    kind = next((kind for kind in INFERENCERS if kind.fits(model)), None)
    if kind is None:
        raise TypeError(
            f'no inferencer fits {type(model).__name__}: it neither classifies, nor segments, nor predicts tokens; '
            'FeatureExtractor is for all'
        )
    if foreign := given.keys() - call_options(kind):
        raise TypeError(f'{kind.__name__} has no option {", ".join(sorted(foreign))}')
    return kind(model, **own)(inputs, **given)


def call_options(kind: type[Inferencer]) -> set[str]:
    """Names of what an inferencer can be told when it is called."""
    return {'batch_size', *list(signature(kind.predict).parameters)[3:]}
