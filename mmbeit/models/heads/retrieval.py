"""Images and texts in one space, and the contrastive loss (unilm:beit3/modeling_finetune.py, beit3/utils.py)."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, distributed, nn

from mmbeit.layers.autocast import no_autocast
from mmbeit.layers.init import init_transformer_
from mmbeit.layers.multiway import Multiway, Streams
from mmbeit.registry import MODELS


class GatherWithGradient(torch.autograd.Function):
    """Concatenate what all ranks have, (B, ...) each. What the others do with ours counts in its gradient."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        distributed.all_reduce(grad)
        return grad.chunk(distributed.get_world_size())[distributed.get_rank()]


@MODELS.register_module()
class ContrastiveHead(BaseModule):
    """Projections of the class token of the image and of the text's `<s>`, and the loss that compares them.

    Args:
        embed_dims: Width D of the tokens and of the common space.
        init_cfg: mmengine's initialisation config, applied after the official one.
    """

    keep: Mapping[str, int] = {'vision': 1, 'text': 1}  # the class token, and the text's `<s>`

    def __init__(self, embed_dims: int, init_cfg: dict | list[dict] | None = None):
        super().__init__(init_cfg)
        self.proj = Multiway(lambda: nn.Linear(embed_dims, embed_dims, bias=False))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def init_weights(self) -> None:
        if not self.is_init:
            init_transformer_(self, bound=0.02)
            super().init_weights()

    def forward(self, tokens: Streams) -> Streams:
        """Features (B, D) of length 1 of 'vision' and 'text', or one of them, from tokens (B, D)."""
        return {name: F.normalize(x, dim=-1) for name, x in self.proj(tokens).items()}

    def loss(self, tokens: Streams) -> dict[str, Tensor]:
        """Cross entropy of finding a text by its image and an image by its text, among those of all ranks.

        Each rank scores its own images and texts: the mean over the ranks, of losses and of gradients (as DDP takes
        it), is what one process has for the global batch. Other texts of the same image count as wrong ones, as
        officially. `logit_scale` is not bounded.

        Args:
            tokens: 'vision' and 'text' (B, D), of as many pairs on each rank.

        Returns:
            `loss`, and `accuracy` in percent, both ways.
        """
        feats = self(tokens)
        vision, text = feats['vision'], feats['text']
        everywhere, first = feats, 0
        if distributed.is_available() and distributed.is_initialized():
            everywhere = {name: GatherWithGradient.apply(x) for name, x in feats.items()}
            first = len(vision) * distributed.get_rank()
        with no_autocast(vision):
            scale = self.logit_scale.exp()
            both = [scale * vision @ everywhere['text'].T, scale * text @ everywhere['vision'].T]
        targets = torch.arange(first, first + len(vision), device=vision.device)
        correct = [(logits.detach().argmax(dim=1) == targets).float().mean() for logits in both]
        return {
            'loss': sum(F.cross_entropy(logits, targets) for logits in both) / 2,
            'accuracy': 100 * sum(correct) / 2,
        }
