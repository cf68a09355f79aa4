"""Visual tokens that a pretrained model predicts."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mmbeit.apis.data import DataConfig
from mmbeit.apis.inferencer import Inferencer, Place, backbone_of, sized
from mmbeit.datasets.transforms.mask import BlockwiseMask
from mmbeit.datasets.transforms.seed import generators_kept

NUM_MASKED = 75 / 196  # of the patches, in the papers


class MaskedImageModelingInferencer(Inferencer):
    """Visual tokens that a pretrained model predicts for patches that it does not see.

    A result is a dict, for a grid of h x w patches, M of them masked, and a codebook of K codes:

    - `mask` (h, w) bool tensor, True = masked.
    - `logits` (M, K) float32 and `pred_ids` (M,) long, row by row, on the CPU.
    - where the tokenizer has a decoder: `reconstruction`, a :class:`mmbeit.apis.reconstruction.Reconstruction` of this
      one image, and `picture`, what the tokenizer makes of the predicted tokens, as a picture of Pillow.

    A decoder is asked for with `target_generator=dict(decoder=True, init_cfg=[...])`. Without one the tokenizer's
    weights are not needed, and not loaded.
    """

    @staticmethod
    def fits(model: nn.Module) -> bool:
        return hasattr(model, 'predict_tokens')

    def predict(
        self,
        images: list[Image.Image],
        places: list[Place],
        mask: Any = None,
        seed: int = 0,
        num_masked: int | None = None,
    ) -> list[dict]:
        """See the class.

        Args:
            images: RGB pictures.
            places: Of the pictures in the input.
            mask: (h, w) or (h*w,), True or 1 = masked, for all pictures; or one for each, (number, h, w) or
                (number, h*w). By default they are drawn, as the recipe of the model does.
            seed: Of the drawn masks. The mask of a picture depends on the seed and its place alone.
            num_masked: How many patches are masked where masks are drawn; by default what the recipe says.

        Raises:
            ValueError: The mask does not fit the patches; the message gives both numbers.
        """
        model, (h, w) = self.model, backbone_of(self.model).grid
        data = sized(self.data, [side * model.backbone.patch_size for side in (h, w)], model.backbone.patch_size)
        if mask is None:
            draw = _mask_transform(model, num_masked)
            masks = torch.from_numpy(
                np.stack([_seeded(lambda: draw({})['mask'], seed + place.index) for place in places])
            ).bool()
        else:
            masks = _masks_of(mask, [place.index for place in places], (h, w))
        view = self.batch(images, data)
        flat = masks.flatten(1).to(view.device)
        logits = model.predict_tokens(view, flat).float().cpu().split(masks.flatten(1).sum(1).tolist())
        results = [
            dict(mask=one, logits=scores, pred_ids=scores.argmax(1)) for one, scores in zip(masks, logits, strict=True)
        ]
        if getattr(model.target_generator, 'decoder', None) is not None:
            for result, parts in zip(results, self._reconstruct(images, view, masks), strict=True):
                pixels = parts.from_prediction.permute(1, 2, 0).mul(255).round().byte().numpy()
                result.update(reconstruction=parts, picture=Image.fromarray(pixels))
        return results

    def _reconstruct(self, images: list[Image.Image], view: Tensor, masks: Tensor) -> Iterator:
        from mmbeit.apis.reconstruction import Reconstruction, reconstruct  # needs matplotlib

        stride = self.model.target_generator.stride
        size = tuple(side * stride for side in masks.shape[1:])
        data = DataConfig((0,) * 3, (255,) * 3, size, self.data.crop, 'lanczos')
        whole = reconstruct(self.model, view, self.batch(images, data), masks.to(view.device))
        for i in range(len(images)):
            yield Reconstruction(*(part[i].cpu() for part in whole))


def _masks_of(mask: Any, indices: list[int], grid: tuple[int, int]) -> Tensor:
    """The given masks of the pictures at these places: (B, h, w) bool."""
    given = torch.as_tensor(mask if isinstance(mask, Tensor) else np.asarray(mask)).bool().cpu()
    count = grid[0] * grid[1]
    if given.numel() == count:
        return given.reshape(1, *grid).expand(len(indices), -1, -1)
    if given.ndim < 2 or given[0].numel() != count or len(given) <= max(indices):
        raise ValueError(
            f'a mask of {tuple(given.shape)} for a grid of {grid} patches: expected one for all or one for each picture'
        )
    return given[indices].reshape(-1, *grid)


def _mask_transform(model: nn.Module, num_masked: int | None) -> BlockwiseMask:
    """The recipe's, or one in proportion where the recipe has another grid or does not say."""
    grid = model.backbone.grid
    cfg = getattr(model, '_config', None) or {}
    steps = (cfg.get('train_dataloader') or {}).get('dataset', {}).get('pipeline', ())
    for step in steps:
        options = {key: value for key, value in step.items() if key != 'type'}
        if step['type'] == 'mmbeit.BlockwiseMask' and BlockwiseMask(**options).grid == grid:
            return BlockwiseMask(**{**options, 'num_masked': num_masked or options['num_masked']})
    num_masked = num_masked or max(1, round(NUM_MASKED * grid[0] * grid[1]))
    return BlockwiseMask(grid, num_masked, min_block=min(16, max(1, num_masked // 4)))


def _seeded(function: Callable[[], Any], seed: int) -> Any:
    """Call a function that draws from the global generators, and leave those as they were."""
    with generators_kept():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        return function()
