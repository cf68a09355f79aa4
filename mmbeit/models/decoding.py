"""The next words of captions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbeit.layers.attn_bias import blocking_bias, caption_bias
from mmbeit.layers.multiway import KeyValue
from mmbeit.models.backbones.beit3 import BEiT3, EncoderOutput
from mmbeit.text_tokenizer import BOS

TEXT_ONLY = {'vision': 0}  # what captioning reads of the last block


class BeamDecoder:
    """Next words of the beams of a batch of images, by a cache of what has been said.

    All beams of an image are one sequence: they share the keys and values of the image, and each sees, of what has been
    said, its own past only. So a beam that forks or ends moves nothing in memory; who sees what is all that changes.

    Args:
        backbone: The encoder.
        head: From tokens to logits of words.
        images: Normalised images (B, 3, height, width).
        mask_id: Id of `<mask>`, from which the next word is predicted.
    """

    def __init__(self, backbone: BEiT3, head: nn.Module, images: Tensor, mask_id: int):
        self.backbone = backbone
        self.head = head
        self.images = images
        self.mask_id = mask_id
        self.num_vision = backbone.num_vision_tokens(images)
        self.place = 0  # in the text, of the word just said
        self.cache = ()
        # Which places of the cache a beam sees: (B, beams, places).
        self.seen = torch.ones(len(images), 1, self.num_vision + 1, dtype=torch.bool, device=images.device)

    def __call__(self, words: Tensor | None, parents: Tensor | None) -> Tensor:
        """See :func:`mmbeit.layers.beam_search.beam_search`."""
        images = self.images
        if words is None:
            ids = torch.tensor([[BOS, self.mask_id]], device=images.device).expand(len(images), 2)
            bias = caption_bias(self.num_vision, 2, images.dtype, images.device)
            return self._next(self.backbone.encode(images, ids, attn_bias=bias, cache=(), keep=TEXT_ONLY), 1)
        B, beams = words.shape
        itself = torch.eye(beams, dtype=torch.bool, device=words.device).expand(B, -1, -1)
        past = self.seen.gather(1, parents[..., None].expand(-1, -1, self.seen.shape[2]))
        self.seen = torch.cat([past, itself], dim=2)
        # A word sees the past and itself; the <mask> after it sees the same, and itself.
        of_words, of_masks = F.pad(self.seen, (0, beams)), torch.cat([self.seen, itself], dim=2)
        bias = blocking_bias(~torch.cat([of_words, of_masks], dim=1), images.dtype)[:, None]
        self.place += 1
        out = self.backbone.encode(
            text_ids=torch.cat([words, torch.full_like(words, self.mask_id)], dim=1),
            text_positions=torch.tensor([self.place, self.place + 1], device=words.device).repeat_interleave(beams),
            attn_bias=bias,
            cache=self.cache,
        )
        return self._next(out, beams)

    def _next(self, out: EncoderOutput, num_masks: int) -> Tensor:
        """Logits of the masks, which come last; they leave the cache."""
        self.cache = [KeyValue(key[:, :, :-num_masks], value[:, :, :-num_masks]) for key, value in out.cache]
        return self.head(out.text[:, -num_masks:])
