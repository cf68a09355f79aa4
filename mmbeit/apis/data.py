"""What weights expect of an image: one data config for each model, and the one way to apply it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor

FULL_SIZE = 384  # from this size on nothing is cropped off, officially (unilm:beit/datasets.py)


def steps_of(pipeline: Sequence) -> Iterator[dict]:
    """The transforms of a pipeline, those within other ones included."""
    for step in pipeline:
        if isinstance(step, dict):
            yield step
            yield from steps_of(step.get('transforms', ()))
        else:  # one of several alternatives
            yield from steps_of(step)


@dataclass(frozen=True)
class DataConfig:
    """From a picture to what a model takes.

    Args:
        mean: Of R, G, B, in [0, 255].
        std: Likewise.
        size: Height and width in pixels of what the model takes.
        crop: The short side is resized to `size / crop`, and the centre is cut out (for segmentation it is not).
            None: the whole picture is squeezed to `size`, whatever its shape.
        interpolation: A name of :class:`PIL.Image.Resampling` in lower case.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    crop: float | None = 0.875
    interpolation: str = 'bicubic'

    def __post_init__(self):
        size = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
        for name, value in (('mean', tuple(self.mean)), ('std', tuple(self.std)), ('size', size)):
            object.__setattr__(self, name, value)
        if self.interpolation.upper() not in Image.Resampling.__members__:
            known = ', '.join(Image.Resampling.__members__).lower()
            raise ValueError(f'interpolation {self.interpolation!r} is not one of {known}')
        if self.crop is not None and not 0 < self.crop <= 1:
            raise ValueError(f'crop ({self.crop}) is not None or above 0 and at most 1')

    @classmethod
    def from_metafile(cls, data: dict) -> 'DataConfig':
        """Read `Data` of an entry of `metafile.yml`."""
        return cls(**{key.lower(): value for key, value in data.items()})

    @classmethod
    def from_config(cls, cfg: Config) -> 'DataConfig':
        """Find out what a recipe evaluates on: by its preprocessor and its test pipeline.

        A recipe that is never evaluated, as in pretraining, has the official geometry of its backbone's size.

        Raises:
            ValueError: It has neither; the message says what is missing.
        """
        preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
        if preprocessor.get('mean') is None:
            raise ValueError('the config has no mean and std: give it a data_preprocessor')
        statistics = dict(mean=preprocessor.mean, std=preprocessor.std)
        loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
        steps = {re.split('[./]', step.type)[-1]: step for step in steps_of(loader.dataset.pipeline)} if loader else {}
        resize = steps.get('ResizeEdge') or steps.get('Resize')
        if resize is None:
            backbone = cfg.model.get('backbone', {})
            size = backbone.get('img_size')
            if size is None:
                raise ValueError('the config has no test pipeline that resizes, and no model.backbone.img_size')
            official = 0.875 if max(size if isinstance(size, Sequence) else [size]) < FULL_SIZE else 1.0
            official = None if backbone.get('type', '').endswith('BEiT3') else official  # squeezed (unilm:beit3)
            return cls(**statistics, size=size, crop=official)
        edge = resize.get('scale', resize.get('size'))
        interpolation = resize.get('interpolation', 'bilinear')
        if resize.get('keep_ratio'):  # of segmentation: the short side has that length, and nothing is cut off
            return cls(**statistics, size=min(edge), crop=1.0, interpolation=interpolation)
        if 'CenterCrop' not in steps:
            size = edge[::-1] if '/' not in resize.type and not isinstance(edge, int) else edge  # mmcv: width first
            return cls(**statistics, size=size, crop=None, interpolation=interpolation)
        crop = steps['CenterCrop']
        size = crop.get('crop_size', crop.get('size'))
        short = size if isinstance(size, int) else min(size)
        return cls(**statistics, size=size, crop=short / edge, interpolation=interpolation)

    def at_size(self, size: int | Sequence[int]) -> 'DataConfig':
        """The same for another size in pixels, one number or (height, width)."""
        return replace(self, size=size)

    def crop_image(self, image: Image.Image) -> Image.Image:
        """Resize and cut a picture, as torchvision does, with the resampling of Pillow."""
        resample = Image.Resampling[self.interpolation.upper()]
        height, width = self.size
        if self.crop is None:
            return image.resize((width, height), resample)
        # The smallest picture of its shape that covers size / crop; for a square size: its short side has that length.
        edge_h, edge_w = int(height / self.crop), int(width / self.crop)
        if image.width * edge_h <= image.height * edge_w:
            resized = edge_w, max(edge_h, int(edge_w * image.height / image.width))
        else:
            resized = max(edge_w, int(edge_h * image.width / image.height)), edge_h
        left, top = round((resized[0] - width) / 2), round((resized[1] - height) / 2)
        return image.resize(resized, resample).crop((left, top, left + width, top + height))

    def normalize(self, images: Tensor) -> Tensor:
        """Scale RGB images (B, 3, height, width) in [0, 255]."""
        mean, std = (torch.tensor(x, device=images.device).view(-1, 1, 1) for x in (self.mean, self.std))
        return (images.float() - mean) / std

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures of any sizes as a normalised batch (B, 3, height, width)."""
        pixels = np.stack([np.asarray(self.crop_image(image)) for image in images])
        return self.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
