"""BEiT v1's visual tokens: the ids of a discrete VAE."""

import torch
from torch import Tensor

from mmbeit.layers.attention import pick
from mmbeit.layers.dvae import DVAEDecoder, DVAEEncoder, map_pixels, unmap_pixels
from mmbeit.layers.masked import MaskedPlaces
from mmbeit.models.target_generators.base import TargetGenerator
from mmbeit.registry import MODELS


@MODELS.register_module()
class DVAETokenizer(TargetGenerator):
    """Visual tokens of a discrete VAE, DALL-E's by default. One token stands for `stride` x `stride` pixels.

    `init_cfg` reads OpenAI's `encoder.pkl` and `decoder.pkl` (one entry each), OpenMMLab's `dalle_encoder.pth`, and
    checkpoints of :class:`mmbeit.models.algorithms.dvae.DiscreteVAE`.

    Args:
        num_codes: Size of the codebook.
        width: Width of the first group of blocks; it doubles from group to group.
        num_groups: Groups of blocks; the stride is 2 ** (num_groups - 1).
        num_blocks: Residual blocks in a group.
        decoder: Whether to have the decoder, too, for :meth:`decode`.
        init_cfg: See :class:`TargetGenerator`.
    """

    def __init__(
        self,
        num_codes: int = 8192,
        width: int = 256,
        num_groups: int = 4,
        num_blocks: int = 2,
        decoder: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        self.num_codes = num_codes
        self.stride = 2 ** (num_groups - 1)
        self.encoder = DVAEEncoder(num_codes, width, num_groups, num_blocks)
        self.decoder = DVAEDecoder(num_codes, width, num_groups, num_blocks) if decoder else None
        self.requires_grad_(False).eval()

    def targets(self, images: Tensor) -> Tensor:
        """Ids (B, N), row by row, of images (B, 3, height, width) in [0, 1]."""
        return self._ids(self._tokens(images))

    def masked_targets(self, images: Tensor, masked: MaskedPlaces) -> Tensor:
        """Those (M,) of masked patches: logits, an eighth of the work of DALL-E's encoder, are of these alone."""
        patches = (masked.tokens - 1).clamp(min=0)  # any for the class token, which is none
        return masked.of(self._ids(pick(self._tokens(images), patches)))

    def _tokens(self, images: Tensor) -> Tensor:
        """What the last layer turns into logits, (B, N, width * stride)."""
        # Convolutions want channels last, and the largest of 8192 is found faster where they lie side by side.
        pixels = map_pixels(images).contiguous(memory_format=torch.channels_last)
        return self.encoder.blocks[:-1](pixels).permute(0, 2, 3, 1).flatten(1, 2)

    def _ids(self, tokens: Tensor) -> Tensor:
        """Ids (B, N) of these tokens (B, N, width * stride), a map of one column to the last layer."""
        return self.encoder.blocks[-1](tokens.transpose(1, 2).unsqueeze(-1)).argmax(dim=1)[..., 0]

    def decode(self, ids: Tensor) -> Tensor:
        """Images (B, 3, stride * h, stride * w) in [0, 1] of ids (B, h, w).

        Raises:
            ValueError: The tokenizer was built without its decoder.
        """
        if self.decoder is None:
            raise ValueError('this tokenizer was built without its decoder: give it decoder=True')
        mean, _ = self.decoder.embed_and_decode(ids).chunk(2, dim=1)
        return unmap_pixels(mean.sigmoid())

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Accept the bare encoder or decoder of OpenAI and OpenMMLab; ignore the decoder where there is none here."""
        if 'blocks.input.w' in state:
            part = 'decoder' if state['blocks.input.w'].shape[-1] == 1 else 'encoder'
            state = {f'{part}.{key}': value for key, value in state.items()}
        parts = ('encoder.', 'decoder.') if self.decoder is not None else ('encoder.',)
        return {key: value for key, value in state.items() if key.startswith(parts)}
