"""BEiT-3's text tokenizer: a model of SentencePiece under the ids of XLM-R (unilm:beit3/datasets.py).

The first four ids are fixed, the pieces of the model follow, and `<mask>` comes last: with the official `beit3.spm` of
64000 pieces it is 64001.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mmbeit.apis.weights import is_url, resolve_weights

OFFICIAL = 'https://github.com/addf400/files/releases/download/beit3/beit3.spm'
BOS, PAD, EOS, UNK = range(4)
OFFSET = 1  # a piece of the model has the id after its own; its first three are <unk>, <s> and </s>
CONTROL = {'<s>': BOS, '<pad>': PAD, '</s>': EOS, '<unk>': UNK}
SPECIAL = re.compile('(<s>|<pad>|</s>|<unk>|<mask>)')
# What the pieces give and what is written instead, one after the other.
CLEAN_UP = [*((end, end[1:]) for end in (' .', ' ?', ' !', ' ,')), (" ' ", "'")]
CLEAN_UP += [(end, end[1:]) for end in (" n't", " 'm", " 's", " 've", " 're")]


class Texts(NamedTuple):
    """A batch of texts.

    Attributes:
        ids: (B, T) long, T tokens in the longest one.
        padding_mask: (B, T) bool, True = padding.
    """

    ids: Tensor
    padding_mask: Tensor


def pad_texts(texts: Iterable[Sequence[int] | Tensor], device: torch.device | str | None = None) -> Texts:
    """Batch texts of any lengths, as long as the longest one. How much padding there is does not change a result."""
    rows = [torch.as_tensor(text) for text in texts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    lengths = torch.tensor([len(row) for row in rows], device=ids.device)
    padding_mask = torch.arange(ids.shape[1], device=ids.device) >= lengths[:, None]
    return Texts(ids.to(device), padding_mask.to(device))


class TextTokenizer:
    """From texts to ids and back.

    Case and punctuation are kept. `<mask>`, `<s>` and the like within a text stand for themselves.

    Args:
        path: File of the SentencePiece model, or its URL, such as :data:`OFFICIAL`; or one of
            `tools/train_text_tokenizer.py`.

    Attributes:
        mask_id: Id of `<mask>`.
        vocab_size: Number of ids, 64002 of the official model. An encoder has at least as many rows.

    Raises:
        FileNotFoundError: There is no such file.
        WeightsError: The URL cannot be downloaded.
        ValueError: It is truncated, or no such model; the message says so on one line.
        ImportError: `sentencepiece` is not installed.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = resolve_weights(path) if is_url(path) else Path(path).expanduser()
        if not self.path.is_file():
            raise FileNotFoundError(f'no such text tokenizer: {self.path}')
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise ImportError('texts need sentencepiece: pip install sentencepiece') from error
        content = self.path.read_bytes()
        if not {PIECES, TRAINER, NORMALIZER} <= set(_fields(content)):  # what is cut off at the end loads all the same
            raise ValueError(f'cannot read {self.path}: it is truncated, or no model of SentencePiece')
        self.model = SentencePieceProcessor()
        try:
            self.model.LoadFromSerializedProto(content)
        except Exception as error:  # it has several of its own
            raise ValueError(f'cannot read {self.path}: it is no model of SentencePiece') from error
        ids = self.model.unk_id(), self.model.bos_id(), self.model.eos_id()
        if ids != (0, 1, 2):
            raise ValueError(f'{self.path} has <unk>, <s> and </s> at {ids}, expected them at (0, 1, 2)')
        self.mask_id = len(self.model) + OFFSET
        self.vocab_size = self.mask_id + 1

    def encode(self, text: str, max_length: int = 64) -> list[int]:
        """Ids of a text between `<s>` and `</s>`. Of a text that is too long the end is cut off, but for `</s>`.

        Args:
            text: The text.
            max_length: Most ids, those two included.

        Raises:
            ValueError: There is nothing in the text, or no place for it.
        """
        if max_length < 3:
            raise ValueError(f'max_length {max_length} leaves no place for text between <s> and </s>')
        ids = list(self._pieces(text))[: max_length - 2]
        if not ids:
            raise ValueError(f'the text {text!r} is empty')
        return [BOS, *ids, EOS]

    def __call__(self, texts: Sequence[str], max_length: int = 64) -> Texts:
        """Batch of texts; see :meth:`encode`."""
        return pad_texts(self.encode(text, max_length) for text in texts)

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """The text of some ids. Special ones are left out, `<unk>` and `<mask>` included.

        Raises:
            ValueError: An id is of nothing.
        """
        ids = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            raise ValueError(f'ids from {min(ids)} to {max(ids)} are not all of the {self.vocab_size} of {self.path}')
        pieces = [self.model.IdToPiece(i - OFFSET) for i in ids if UNK < i < self.mask_id]
        text = ''.join(pieces).replace('\N{LOWER ONE EIGHTH BLOCK}', ' ').strip()
        for spaced, written in CLEAN_UP:
            text = text.replace(spaced, written)
        return text

    def _pieces(self, text: str) -> Iterator[int]:
        for part in SPECIAL.split(text):
            if part == '<mask>':
                yield self.mask_id
            elif part in CONTROL:
                yield CONTROL[part]
            else:
                for piece in self.model.EncodeAsIds(part):
                    yield piece + OFFSET if piece else UNK


PIECES, TRAINER, NORMALIZER = 1, 2, 3  # fields of sentencepiece:src/sentencepiece_model.proto


def _fields(content: bytes) -> Iterator[int]:
    """Numbers of the fields of a protocol buffer, as long as they are whole."""
    at, end = 0, len(content)

    def number() -> int:
        nonlocal at
        value = shift = 0
        while at < end and shift < 64:
            byte = content[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        return -1

    while at < end:
        key = number()
        size = {0: lambda: number() * 0, 1: lambda: 8, 2: number, 5: lambda: 4}.get(key & 7, lambda: end)()
        at += size
        if key < 0 or size < 0 or at > end:
            return
        yield key >> 3
