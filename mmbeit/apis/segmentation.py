"""Classes of the pixels of pictures."""

import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.figure
import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.patches import Patch
from PIL import Image
from torch import Tensor, nn

from mmbeit.apis.inferencer import Inferencer, Place

LONGEST = 4  # times the short side: what is longer is made smaller, in the recipes
CLASSES_AT_ONCE = 16  # resized to the size of a picture, which may be large


class SegmentationInferencer(Inferencer):
    """Classes of the pixels of pictures, by a model of mmseg around a backbone of ours.

    Pictures are resized as the recipes do it, and cut into overlapping windows where the recipe does so, or where they
    are too large. A result is a dict:

    - `pred_sem_seg` (height, width) int64 array, the class of every pixel at the picture's own size.
    - `areas`: from names of classes (or their numbers) to their shares of the picture, the largest first.

    Args:
        model, pretrained, device, data, overrides: See :class:`mmbeit.apis.inferencer.Inferencer`.
        classes: Names of the classes; by default those of the checkpoint or of the data set of the config.
    """

    def __init__(self, *args: Any, classes: Sequence[str] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        meta = getattr(self.model, '_dataset_meta', {}) or {}
        count = max(self.model.out_channels, 2)
        names = classes or meta.get('classes') or ()
        self.classes = tuple(names) if len(names) == count else tuple(map(str, range(count)))
        self.palette = palette(count, meta.get('palette'))

    @staticmethod
    def fits(model: nn.Module) -> bool:
        return hasattr(model, 'encode_decode')

    def predict(
        self,
        images: list[Image.Image],
        places: list[Place],
        size: int | None = None,
        max_pixels: int | None = None,
        windows_at_once: int = 4,
        out_dir: str | os.PathLike | None = None,
    ) -> list[dict]:
        """See the class.

        Args:
            images: RGB pictures.
            places: Of the pictures in the input.
            size: Short side in pixels that pictures are resized to; by default that of the recipe.
            max_pixels: Pictures with more pixels, after that, go through the model in windows: a bound for the memory.
            windows_at_once: How many windows of a picture the model gets at once.
            out_dir: Folder for a PNG of each picture with its classes and a legend; none is drawn by default.

        Raises:
            ValueError: A number is not positive.
        """
        for name, value in dict(size=size, max_pixels=max_pixels, windows_at_once=windows_at_once).items():
            if value is not None and value < 1:
                raise ValueError(f'{name} ({value}) is not positive')
        results = []
        for image, place in zip(images, places, strict=True):
            logits = self.logits(image, size, max_pixels, windows_at_once)
            classes = classes_at(logits, (image.height, image.width), self.model.align_corners).cpu().numpy()
            counts = np.bincount(classes.ravel(), minlength=len(self.classes)) / classes.size
            areas = {self.classes[i]: float(counts[i]) for i in np.argsort(-counts, kind='stable') if counts[i]}
            results.append(dict(pred_sem_seg=classes, areas=areas))
            if out_dir is not None:
                folder = Path(out_dir)
                folder.mkdir(parents=True, exist_ok=True)
                figure = draw(image, classes, self.classes, self.palette)
                figure.savefig(folder / f'{place.name}.png', dpi=100)
        return results

    def logits(self, image: Image.Image, size: int | None, max_pixels: int | None, windows_at_once: int) -> Tensor:
        """Logits (classes, height, width) of a picture at the size that the model gets."""
        short = size or round(min(self.data.size) / (self.data.crop or 1))
        pixels, _ = mmcv.imrescale(np.asarray(image), (LONGEST * short, short), return_scale=True)
        device = next(self.model.parameters()).device
        x = self.data.normalize(torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device))
        test_cfg = self.model.test_cfg
        slides = test_cfg.get('mode') == 'slide'
        if not slides and (max_pixels is None or x.shape[-2] * x.shape[-1] <= max_pixels):
            return encode_decode(self.model, x)[0]
        crop = test_cfg.get('crop_size') or (self.data.size if max_pixels is None else square_below(max_pixels))
        stride = test_cfg.get('stride') or [-(-2 * side // 3) for side in crop]
        return slide(self.model, x[0], crop, stride, windows_at_once)


def square_below(max_pixels: int) -> tuple[int, int]:
    """The largest square of at most so many pixels."""
    side = int(max_pixels**0.5)
    return side, side


def encode_decode(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (B, classes, height, width) of normalised images (B, 3, height, width)."""
    return model.encode_decode(x, [dict(img_shape=x.shape[2:])] * len(x))


def window_corners(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one side; the last one ends at the border (mmseg's `slide_inference`)."""
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(i * stride + window, length) - window, 0) for i in range(count)]


def slide(model: nn.Module, x: Tensor, window: Sequence[int], stride: Sequence[int], at_once: int) -> Tensor:
    """Mean logits (classes, height, width) of the windows of a normalised image (3, height, width).

    mmseg's `slide_inference` gives the same, window by window.

    Args:
        model: Of mmseg.
        x: The image.
        window: Height and width in pixels.
        stride: Likewise, from one window to the next.
        at_once: How many windows the model gets at once.
    """
    (height, width), (h, w) = x.shape[1:], window
    corners = list(product(window_corners(height, h, stride[0]), window_corners(width, w, stride[1])))
    total, count = None, x.new_zeros(height, width)
    for start in range(0, len(corners), at_once):
        chunk = corners[start : start + at_once]
        parts = torch.stack([x[:, top : top + h, left : left + w] for top, left in chunk])
        for (top, left), logits in zip(chunk, encode_decode(model, parts), strict=True):
            if total is None:
                total = logits.new_zeros(len(logits), height, width)
            total[:, top : top + h, left : left + w] += logits
            count[top : top + h, left : left + w] += 1
    return total.div_(count)


def classes_at(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """The likeliest class (height, width) long at another size, of logits (classes, h, w), bilinear between them.

    A single class is there where its probability is above one half. Classes are resized few at a time, so that a large
    picture with many classes needs no memory for all of them; the result is the same.
    """

    def resize(part: Tensor) -> Tensor:
        return F.interpolate(part[None].float(), size, mode='bilinear', align_corners=align_corners)[0]

    if len(logits) == 1:
        return (resize(logits)[0] > 0).long()
    best, classes = None, None
    for start in range(0, len(logits), CLASSES_AT_ONCE):
        value, index = resize(logits[start : start + CLASSES_AT_ONCE]).max(dim=0)
        if best is None:
            best, classes = value, index
        else:
            better = value > best
            best, classes = torch.where(better, value, best), torch.where(better, index + start, classes)
    return classes


def palette(count: int, given: Sequence | None = None) -> np.ndarray:
    """Colours (count, 3) of classes in [0, 1]: those given, in [0, 255], or evenly spaced hues."""
    if given is not None and len(given) >= count:
        return np.asarray(given[:count]) / 255
    return colormaps['hsv'](np.linspace(0, 1, count, endpoint=False))[:, :3]


def draw(
    image: Image.Image, classes: np.ndarray, names: Sequence[str], colours: np.ndarray, max_legend: int = 12
) -> matplotlib.figure.Figure:
    """A picture with the colours of its classes over it, and a legend of the largest of them with their shares.

    Args:
        image: The picture.
        classes: (height, width) integers, the class of every pixel.
        names: Of all classes.
        colours: Of all classes, (number, 3) in [0, 1].
        max_legend: How many of them the legend names.
    """
    shares = np.bincount(classes.ravel(), minlength=len(names)) / classes.size
    largest = [i for i in np.argsort(-shares, kind='stable') if shares[i]][:max_legend]
    blend = 0.5 * np.asarray(image) / 255 + 0.5 * colours[classes]
    scale = 6 / max(image.size)
    figure = matplotlib.figure.Figure((image.width * scale + 2.2, image.height * scale), layout='constrained')
    axes = figure.subplots()
    axes.imshow(blend, interpolation='nearest')
    axes.set_axis_off()
    axes.set_anchor('W')
    patches = [Patch(color=colours[i], label=f'{names[i]} {100 * shares[i]:.0f} %') for i in largest]
    axes.legend(handles=patches, loc='upper left', bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    return figure
