"""Features of pictures."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import nn

from mmbeit.apis.inferencer import Inferencer, Place, backbone_of, sized


class FeatureExtractor(Inferencer):
    """Features of pictures, of any model with the backbone of BEiT or BEiT-3, at any size.

    A result is a dict of float32 tensors on the CPU, for a width D and a grid of h x w patches:

    - `pooled` (D,): the mean of the last block's patches, normalised as the classifier sees it where there is one.
    - `cls_token` (D,): the class token of the last block.
    - `cls_tokens` (L, D) and `maps` (L, D, h, w): class token and patches after each of the L blocks of `layers`.
    """

    @staticmethod
    def fits(model: nn.Module) -> bool:
        return False  # it is for all, so it has to be asked for

    def predict(
        self,
        images: list[Image.Image],
        places: list[Place],
        layers: int | Sequence[int] = -1,
        size: int | Sequence[int] | None = None,
    ) -> list[dict]:
        """See the class.

        Args:
            images: RGB pictures.
            places: Not used.
            layers: Blocks, 0-based, negative from the end; they come in the order given.
            size: Of the pictures that the model gets, in pixels, one number or (height, width); by default the
                model's. The share of the picture that is cropped off stays the same.

        Raises:
            ValueError: There are no such blocks, or the size is not a whole number of patches.
        """
        backbone = backbone_of(self.model)
        depth = len(backbone.blocks)
        layers = [layers] if isinstance(layers, int) else list(layers)
        if not all(-depth <= i < depth for i in layers):
            raise ValueError(f'layers {layers} do not fit the {depth} blocks of the model')
        layers = [i % depth for i in layers]
        x = self.batch(images, sized(self.data, size, backbone.patch_size))
        grid = x.shape[-2] // backbone.patch_size, x.shape[-1] // backbone.patch_size
        wanted = sorted({*layers, depth - 1})
        tokens = dict(zip(wanted, backbone.block_tokens(x, None, wanted), strict=True))
        last = tokens[depth - 1]
        pooled = last[:, 1:].mean(dim=1)
        results = dict(
            pooled=pooled if backbone.fc_norm is None else backbone.fc_norm(pooled),
            cls_token=last[:, 0],
            cls_tokens=torch.stack([tokens[i][:, 0] for i in layers], dim=1),
            maps=torch.stack([tokens[i][:, 1:].transpose(1, 2).unflatten(2, grid) for i in layers], dim=1),
        )
        results = {name: values.float().cpu() for name, values in results.items()}
        return [{name: values[b] for name, values in results.items()} for b in range(len(images))]
