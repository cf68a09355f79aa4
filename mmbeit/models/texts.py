"""From data samples to batches of texts."""

from typing import NamedTuple

import torch
from torch import Tensor

from mmbeit.text_tokenizer import Texts, pad_texts


def batch_texts(data_samples: list, device: torch.device, field: str = 'text_ids') -> Texts:
    """The texts of some samples, padded to the longest one.

    Raises:
        ValueError: A sample has none.
    """
    if not all(field in sample for sample in data_samples):
        raise ValueError(f'a sample has no {field}: does the pipeline make it, and PackInputs pass it on?')
    return pad_texts((sample.get(field) for sample in data_samples), device)


class MaskedTexts(NamedTuple):
    """A batch of texts of which some tokens are to be predicted.

    Attributes:
        shown: What the model sees.
        ids: What the texts are, (B, T) long.
        mask: (B, T) bool, True = to be predicted.
    """

    shown: Texts
    ids: Tensor
    mask: Tensor


def masked_texts(data_samples: list, device: torch.device) -> MaskedTexts:
    """The masked texts of some samples, padded to the longest one.

    Raises:
        ValueError: A sample has none.
    """
    shown = batch_texts(data_samples, device, 'masked_text_ids')
    mask = batch_texts(data_samples, device, 'text_mask').ids.bool() & ~shown.padding_mask
    return MaskedTexts(shown, batch_texts(data_samples, device).ids, mask)
