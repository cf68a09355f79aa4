"""Training of a discrete VAE, the tokenizer of BEiT v1, on any images."""

import math

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor

from mmbeit.layers.dvae import DVAEDecoder, DVAEEncoder, logit_laplace_nll, map_pixels, unmap_pixels
from mmbeit.layers.quantizer import perplexity
from mmbeit.registry import MODELS


@MODELS.register_module()
class DiscreteVAE(BaseModel):
    """DALL-E's discrete VAE with a Gumbel-softmax relaxation (https://arxiv.org/abs/2102.12092, section 2.1).

    The loss is the negative evidence bound per pixel and channel: the logit-Laplace likelihood of the image given
    relaxed codes, and the divergence of the codes from the uniform prior, times `kl_weight`. Anneal `temperature` and
    `kl_weight` with :class:`mmbeit.engine.hooks.AnnealHook`; the paper goes from 1 to 1/16 and from 0 to 6.6.

    Args:
        num_codes, width, num_groups, num_blocks: As for :class:`mmbeit.models.target_generators.dvae.DVAETokenizer`,
            which loads the checkpoints of this class.
        temperature: Of the relaxation.
        kl_weight: Weight of the divergence, beta in the paper.
        usage_weight: Weight of a third term that the paper does not have: the divergence of the batch's mean code
            distribution from the uniform one. It keeps codes alive where images are few or alike.
        data_preprocessor: Config; its images have to arrive here in [0, 1].
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        num_codes: int = 8192,
        width: int = 256,
        num_groups: int = 4,
        num_blocks: int = 2,
        temperature: float = 1.0,
        kl_weight: float = 6.6,
        usage_weight: float = 0.0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.encoder = DVAEEncoder(num_codes, width, num_groups, num_blocks)
        self.decoder = DVAEDecoder(num_codes, width, num_groups, num_blocks)
        self.num_codes = num_codes
        self.temperature = temperature
        self.kl_weight = kl_weight
        self.usage_weight = usage_weight

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor') -> dict | list | Tensor:
        """mmengine's entry point.

        Args:
            inputs: Images (B, 3, s*h, s*w) in [0, 1].
            data_samples: Not used.
            mode: 'loss'; 'predict' for what :class:`mmbeit.evaluation.codebook.CodebookUsage` takes, a dict for each
                image; 'tensor' for logits (B, num_codes, h, w).

        Raises:
            ValueError: Another mode.
        """
        pixels = map_pixels(inputs)
        logits = self.encoder(pixels).float()
        if mode == 'tensor':
            return logits
        if mode == 'loss':
            return self.loss(pixels, logits)
        if mode == 'predict':
            ids = logits.argmax(dim=1)
            images = self.decode(ids)
            error = (images - inputs).abs().flatten(1).mean(dim=1)
            return [dict(ids=i, num_codes=self.num_codes, error=e) for i, e in zip(ids, error, strict=True)]
        raise ValueError(f"mode {mode!r} is not one of ('loss', 'predict', 'tensor')")

    def loss(self, pixels: Tensor, logits: Tensor) -> dict[str, Tensor]:
        """The two terms of the bound, and how widely the batch uses the codebook.

        Args:
            pixels: Mapped images (B, 3, s*h, s*w) in [0.1, 0.9].
            logits: (B, num_codes, h, w).

        Returns:
            `loss_reconstruction`, `loss_kl`; `perplexity` of the batch's hard codes, from 1 to `num_codes`.
        """
        codes = F.gumbel_softmax(logits, tau=self.temperature, dim=1)
        mean, log_scale = self.decoder(codes).float().chunk(2, dim=1)
        log_probs = logits.log_softmax(dim=1)
        probs = log_probs.exp()
        kl = (probs * log_probs).sum(dim=1) + math.log(self.num_codes)  # (B, h, w)
        counts = torch.bincount(logits.detach().argmax(dim=1).flatten(), minlength=self.num_codes)
        per_element = kl.numel() / pixels.numel()
        losses = {
            'loss_reconstruction': logit_laplace_nll(pixels, mean, log_scale).mean(),
            'loss_kl': self.kl_weight * per_element * kl.mean(),
            'perplexity': perplexity(counts),
        }
        if self.usage_weight:
            usage = probs.mean(dim=(0, 2, 3))
            divergence = torch.special.xlogy(usage, usage).sum() + math.log(self.num_codes)
            losses['loss_usage'] = self.usage_weight * per_element * divergence
        return losses

    def decode(self, ids: Tensor) -> Tensor:
        """Images (B, 3, s*h, s*w) in [0, 1] of ids (B, h, w)."""
        mean, _ = self.decoder.embed_and_decode(ids).float().chunk(2, dim=1)
        return unmap_pixels(mean.sigmoid())
