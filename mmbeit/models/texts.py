"""From data samples to batches of texts."""

from typing import NamedTuple

import torch
from torch import Tensor

from mmbeit.layers.masked import MaskedPlaces, find_masked
from mmbeit.text_tokenizer import Texts, pad_texts


def batch_texts(data_samples: list, device: torch.device | None, field: str = 'text_ids') -> Texts:
    """The texts of some samples, padded to the longest one, on a device, or where they are.

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
        masked: Which tokens are to be predicted.
        ids: What these are, (M,) long.
    """

    shown: Texts
    masked: MaskedPlaces
    ids: Tensor


def masked_texts(data_samples: list, device: torch.device) -> MaskedTexts:
    """The masked texts of some samples, padded to the longest one.

    Raises:
        ValueError: A sample has none.
    """
    shown = batch_texts(data_samples, device, 'masked_text_ids')
    mask = batch_texts(data_samples, None, 'text_mask')
    masked = find_masked(mask.ids.bool() & ~mask.padding_mask, device, first=0)
    ids = batch_texts(data_samples, device).ids.flatten().index_select(0, masked.places)
    return MaskedTexts(shown, masked, ids)
