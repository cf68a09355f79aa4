"""Random erasing with noise that is standard normal after normalisation."""

import math
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from mmbeit.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomErasing(BaseTransform):
    """Replace a random box by noise N(mean, std) per pixel, unclipped (timm's mode 'pixel', as BEiT's recipes use it).

    mmpretrain's transform of this name clips to [0, 255], which at mean = std = 127.5 puts a third of the pixels on the
    border. Reads `img`, an array (height, width, 3); replaces it by one of float32.

    Args:
        mean: Of the channels of `img`, the ones that the data preprocessor subtracts.
        std: Likewise.
        prob: Probability of erasing.
        area: Smallest and largest share of the image.
        aspect: Smallest and largest ratio of height to width.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        prob: float = 0.25,
        area: Sequence[float] = (0.02, 1 / 3),
        aspect: Sequence[float] = (0.3, 1 / 0.3),
    ):
        self.mean = np.float32(mean)
        self.std = np.float32(std)
        self.prob = prob
        self.area = area
        self.log_aspect = math.log(aspect[0]), math.log(aspect[1])

    def transform(self, results: dict) -> dict:
        image = results['img'].astype(np.float32)
        results['img'] = image
        if np.random.rand() >= self.prob:
            return results
        height, width = image.shape[:2]
        for _ in range(10):
            area = np.random.uniform(*self.area) * height * width
            aspect = math.exp(np.random.uniform(*self.log_aspect))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < height and w < width:
                top, left = np.random.randint(height - h + 1), np.random.randint(width - w + 1)
                noise = np.random.standard_normal((h, w, 3)).astype(np.float32)
                image[top : top + h, left : left + w] = self.mean + self.std * noise
                break
        return results
