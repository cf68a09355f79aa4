"""One call from pictures to results."""

import os
from inspect import Parameter, signature
from typing import Any

from mmengine.config import Config
from torch import nn

from mmbeit.apis.captioning import ImageCaptionInferencer
from mmbeit.apis.classification import ImageClassificationInferencer
from mmbeit.apis.inferencer import Inferencer, prepare_model
from mmbeit.apis.model import config_of
from mmbeit.apis.nlvr import NLVRInferencer
from mmbeit.apis.question_answering import VisualQuestionAnsweringInferencer
from mmbeit.apis.retrieval import (
    ImageToTextRetrievalInferencer,
    TextToImageRetrievalInferencer,
    ZeroShotClassificationInferencer,
)
from mmbeit.apis.segmentation import SegmentationInferencer
from mmbeit.apis.tokens import MaskedImageModelingInferencer

INFERENCERS: tuple[type[Inferencer], ...] = (
    MaskedImageModelingInferencer,
    ImageCaptionInferencer,
    VisualQuestionAnsweringInferencer,
    NLVRInferencer,
    ImageToTextRetrievalInferencer,
    ZeroShotClassificationInferencer,
    TextToImageRetrievalInferencer,
    SegmentationInferencer,
    ImageClassificationInferencer,
)


def inference_model(model: nn.Module | str | os.PathLike | Config, inputs: Any, *texts: Any, **options: Any) -> Any:
    """Run a model on pictures, in one call. To run it often, keep an inferencer.

    Args:
        model: A model, or what :func:`mmbeit.get_model` takes.
        inputs: A picture, a list of pictures, or a folder; for NLVR2 a tuple (left picture, right picture, sentence),
            or a list of these; to search pictures, a text or a list of texts.
        texts: What the inferencer wants next to pictures: `questions` of VQA.
        options: Of the inferencer that fits, or of its call. They are these, in :mod:`mmbeit`:
            `MaskedImageModelingInferencer`, `ImageCaptionInferencer`, `VisualQuestionAnsweringInferencer`,
            `NLVRInferencer`, `SegmentationInferencer`, `ImageClassificationInferencer`; and for a model that compares
            pictures with texts, as its options say: `ImageToTextRetrievalInferencer` (`texts=[...]`),
            `ZeroShotClassificationInferencer` (`classes=[...]`) and `TextToImageRetrievalInferencer`
            (`images=[...]`).

    Returns:
        A result, a list of results, or a dict of results by path, see the inferencer.

    Raises:
        TypeError: No inferencer fits: :class:`mmbeit.FeatureExtractor` is for all. Or the one that fits does not have
            an option, or wants one that is not given.
    """
    known = {name for kind in INFERENCERS for name in (*call_options(kind), *own_options(kind))}
    given = {name: options.pop(name) for name in list(options) if name in known}
    if not isinstance(model, nn.Module):
        for part, change in given_files(model, given).items():
            options[part] = {**change, **options.get(part, {})} if isinstance(change, dict) else change
    model = prepare_model(model, **options)
    kind = choose(model, set(given))
    own = {name: given.pop(name) for name in own_options(kind) if name in given}
    if foreign := given.keys() - call_options(kind):
        raise TypeError(f'{kind.__name__} has no option {", ".join(sorted(foreign))}')
    return kind(model, **own)(inputs, *texts, **given)


def given_files(model: str | os.PathLike | Config, options: dict[str, Any]) -> dict[str, Any]:
    """What to change in the config of a model for it not to look for files that are given otherwise."""
    cfg = config_of(model).model
    changes = {}
    if 'answers' in options and 'answers' in cfg.get('head', {}):
        changes['head'] = dict(answers=options['answers'])
    if 'tokenizer' in options and 'tokenizer' in cfg:
        changes['tokenizer'] = options['tokenizer']
    return changes


def choose(model: nn.Module, options: set[str]) -> type[Inferencer]:
    """The inferencer for a model: the first one that fits and has all that it needs."""
    kinds = [kind for kind in INFERENCERS if kind.fits(model)]
    if not kinds:
        raise TypeError(
            f'no inferencer fits {type(model).__name__}: it neither classifies, nor segments, nor predicts tokens, nor '
            'knows texts; FeatureExtractor is for all'
        )
    ready = [kind for kind in kinds if needs(kind) <= options]
    if not ready:
        wanted = ', '.join(f'{next(iter(needs(kind)))} ({kind.__name__})' for kind in kinds)
        raise TypeError(f'{type(model).__name__} needs one of these options: {wanted}')
    return ready[0]


def call_options(kind: type[Inferencer]) -> set[str]:
    """Names of what an inferencer can be told when it is called."""
    own = set(signature(kind.predict).parameters) | set(signature(kind.__call__).parameters)
    return own - {'self', 'images', 'places', 'inputs', 'options'}


def own_options(kind: type[Inferencer]) -> set[str]:
    """Names of what an inferencer can be told when it is made, but for those of :func:`prepare_model`."""
    return {'data', *(name for cls in kind.__mro__ for name in keywords(cls))}


def needs(kind: type[Inferencer]) -> set[str]:
    """Those of them without which it cannot be made."""
    return {name for name, one in keywords(kind).items() if one.default is Parameter.empty}


def keywords(cls: type) -> dict[str, Parameter]:
    parameters = signature(cls.__init__).parameters if '__init__' in vars(cls) else {}
    return {name: one for name, one in parameters.items() if one.kind is Parameter.KEYWORD_ONLY}
