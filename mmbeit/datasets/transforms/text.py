"""From texts to ids, and masked ones."""

import os
import random
import warnings
from collections.abc import Sequence

from mmcv.transforms import BaseTransform

from mmbeit.datasets.transforms.image import checked_on_error
from mmbeit.registry import TRANSFORMS
from mmbeit.text_tokenizer import UNK, TextTokenizer


@TRANSFORMS.register_module()
class TokenizeText(BaseTransform):
    """Turn the text of a sample into ids.

    Reads `key`, a text or a list of texts, and `text_path`, which says in messages where it is; adds `text_ids`, a list
    of ids, or a list of such lists. They are not padded: models batch them. Of a text that is too long the end is cut
    off; a warning says so once.

    Args:
        tokenizer: Path of the SentencePiece model, or a :class:`mmbeit.text_tokenizer.TextTokenizer`.
        key: Where the text is: 'text', 'question', 'gt_caption'.
        max_length: Most ids of a text, 64 officially, 32 to train captions.
        on_error: What an empty text does: 'raise' stops the run; 'skip' warns and lets the data set draw another sample
            in its place.

    Raises:
        ValueError: The tokenizer cannot be read, or a text is empty.
    """

    def __init__(
        self, tokenizer: str | TextTokenizer, key: str = 'text', max_length: int = 64, on_error: str = 'raise'
    ):
        self.on_error = checked_on_error(on_error)
        self.tokenizer = as_tokenizer(tokenizer)
        self.key = key
        self.max_length = max_length
        self.warned = False

    def transform(self, results: dict) -> dict | None:
        text = results[self.key]
        try:
            results['text_ids'] = self.encode(text) if isinstance(text, str) else [self.encode(one) for one in text]
        except ValueError as error:
            if self.on_error == 'raise':
                raise
            message = f'{results["text_path"]}: {error}' if 'text_path' in results else str(error)
            warnings.warn(f'{message}; another sample takes its place', stacklevel=2)
            return None
        return results

    def encode(self, text: str) -> list[int]:
        """Ids of a text, see :meth:`mmbeit.text_tokenizer.TextTokenizer.encode`."""
        ids = self.tokenizer.encode(text, self.max_length)
        if len(ids) == self.max_length and not self.warned:
            length = len(self.tokenizer.encode(text, len(text) + 3))
            if length > self.max_length:
                start = text if len(text) <= 40 else f'{text[:40]}...'
                warnings.warn(
                    f'a {self.key} of {length} ids is cut off to {self.max_length} (said once): {start!r}',
                    stacklevel=2,
                )
                self.warned = True
        return ids


def as_tokenizer(tokenizer: str | os.PathLike | TextTokenizer) -> TextTokenizer:
    """A tokenizer, or that of a path or URL."""
    return tokenizer if isinstance(tokenizer, TextTokenizer) else TextTokenizer(tokenizer)


def mask_text(
    ids: Sequence[int], probability: float, mask_id: int, mask_end: bool = True
) -> tuple[list[int], list[bool]]:
    """Hide some tokens of a text (unilm:beit3/datasets.py). Draws from Python's `random`, in the official order.

    Of the tokens to predict 80 % become `<mask>`, 10 % stay, and 10 % become any id from `<unk>` to `<mask>`.

    Args:
        ids: With `<s>` first and `</s>` last. `<s>` is never hidden.
        probability: Share of the tokens to hide, `<s>` and `</s>` counted; at least one is hidden.
        mask_id: Id of `<mask>`, the largest one.
        mask_end: Whether `</s>` may be hidden, from which captions learn to end. If not, neither it nor `<s>` counts.

    Returns:
        The ids to show; where they are to be predicted, True.
    """
    last = len(ids) - 1 if mask_end else len(ids) - 2
    counted = len(ids) if mask_end else len(ids) - 2
    num_masked = max(min(int(counted * probability + 0.5), last), 1)
    shown, mask = list(ids), [False] * len(ids)
    while num_masked:
        i = random.randint(1, last)
        if mask[i]:
            continue
        mask[i] = True
        num_masked -= 1
        draw = random.random()
        if draw < 0.8:
            shown[i] = mask_id
        elif draw >= 0.9:
            shown[i] = random.randint(UNK, mask_id)
    return shown, mask


@TRANSFORMS.register_module()
class MaskText(BaseTransform):
    """Draw the mask of a text.

    Reads `text_ids`; adds `masked_text_ids`, what the model sees, and `text_mask`, a list of bool, True = to be
    predicted.

    Args:
        tokenizer: As for :class:`TokenizeText`.
        probability: Share of the tokens to hide: 0.7 for the official captions, 0.6 in the paper; in pretraining 0.15
            of a text alone, 0.5 of one with an image.
        mask_end: Whether `</s>` may be hidden: for captions it may.

    Raises:
        ValueError: `probability` is not between 0 and 1.
    """

    def __init__(self, tokenizer: str | TextTokenizer, probability: float, mask_end: bool = True):
        if not 0 < probability <= 1:
            raise ValueError(f'probability ({probability}) is not between 0 and 1')
        self.mask_id = as_tokenizer(tokenizer).mask_id
        self.probability = probability
        self.mask_end = mask_end

    def transform(self, results: dict) -> dict:
        results['masked_text_ids'], results['text_mask'] = mask_text(
            results['text_ids'], self.probability, self.mask_id, self.mask_end
        )
        return results
