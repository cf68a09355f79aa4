"""Texts for inferencers."""

import os
from typing import Any

from mmpretrain.structures import DataSample
from torch import nn

from mmbeit.apis.data import steps_of
from mmbeit.apis.inferencer import Inferencer
from mmbeit.datasets.transforms.text import as_tokenizer
from mmbeit.text_tokenizer import TextTokenizer

MAX_LENGTH = 64  # ids of a text, officially


class TextInferencer(Inferencer):
    """What the inferencers share that know texts.

    Args:
        model, pretrained, device, data, overrides: See :class:`mmbeit.apis.inferencer.Inferencer`.
        tokenizer: Path or URL of its SentencePiece model, or a :class:`mmbeit.text_tokenizer.TextTokenizer`; by default
            that of the model, or of the test pipeline of its config.

    Raises:
        TypeError: The model is of another kind.
        ValueError: Nothing says which tokenizer the model was made for.
    """

    def __init__(self, *args: Any, tokenizer: str | os.PathLike | TextTokenizer | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not self.fits(self.model):
            raise TypeError(f'{type(self).__name__} is not for a model of type {type(self.model).__name__}')
        self.tokenizer = tokenizer_of(self.model) if tokenizer is None else as_tokenizer(tokenizer)
        self.max_length = min(MAX_LENGTH, self.model.backbone.max_text_length)

    def sample(self, text: str) -> DataSample:
        """A data sample with the ids of a text.

        Raises:
            ValueError: There is nothing in the text.
        """
        return DataSample(text_ids=self.tokenizer.encode(text, self.max_length))


def tokenizer_of(model: nn.Module) -> TextTokenizer:
    """The text tokenizer that a model was made for.

    Raises:
        ValueError: The model does not say.
    """
    own = getattr(model, 'tokenizer', None)
    if own is not None:
        return own
    cfg = getattr(model, '_config', None) or {}
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    for step in steps_of(loader.dataset.pipeline) if loader else ():
        if step.type.endswith('TokenizeText'):
            return as_tokenizer(step.tokenizer)
    raise ValueError(
        f'{type(model).__name__} does not say which text tokenizer it was made for: give tokenizer=, the path or the '
        'URL of a SentencePiece model, such as mmbeit.text_tokenizer.OFFICIAL'
    )
