"""The two views at less cost: decoded no larger than the crop needs, resized with vector instructions, coloured last.

The views are distributed as the official ones, but for rounding: the jitter of brightness and saturation acts on each
pixel by itself, and that of contrast draws to the mean grey of the whole image, which is taken from a thumbnail of it.
"""

import io
import random
import struct
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from PIL import Image
from torch.nn.functional import interpolate

from mmbeit.datasets.transforms.image import Box, LoadImage, RandomResizedCropTwoViews
from mmbeit.registry import TRANSFORMS

# Flags of how many times smaller; grey ones, because those of colour are for BGR.
DRAFTS = {8: cv2.IMREAD_REDUCED_GRAYSCALE_8, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2}
AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'
JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # markers of sizes: baseline, extended, progressive
JPEG_OTHERS = (0x01, *range(0xD0, 0xDB), 0xFF)  # those that no length follows, that of pixels, and padding
THUMBNAIL = 48  # pixels of the short side of a thumbnail, at least
GREY = (0.299, 0.587, 0.114)  # shares of R, G and B in the grey of a pixel


@TRANSFORMS.register_module()
class LoadTwoViews(LoadImage):
    """Read an image file, and cut one random crop at two sizes out of it.

    Reads `img_path`; adds `img`, a list of two RGB arrays, (height, width, 3) uint8, `thumbnail`, the whole image made
    small, and `img_shape` and `ori_shape`, both (height, width). Where a crop is larger than its views, a JPEG is
    decoded at a half, a quarter or an eighth of its size, from which the views are still made smaller.

    Args:
        size, target_size, scale, ratio: As for
            :class:`mmbeit.datasets.transforms.image.RandomResizedCropTwoViews`, with the same draws.
        interpolation, target_interpolation: 'bilinear', 'bicubic' or 'lanczos'.
        on_error, backend_args: As for :class:`mmbeit.datasets.transforms.image.LoadImage`.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        target_size: int | Sequence[int] | None,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = 'bicubic',
        target_interpolation: str = 'lanczos',
        on_error: str = 'raise',
        backend_args: dict | None = None,
    ):
        super().__init__(on_error, backend_args)
        self.crop = RandomResizedCropTwoViews(size, target_size, scale, ratio, interpolation, target_interpolation)
        self.views = [(view, resample.name.lower()) for view, resample in self.crop.views]

    def read(self, content: bytes, results: dict) -> None:
        size = jpeg_size(content)
        width, height = size or pillow_size(content)
        box = self.crop.draw_box((height, width))
        pixels = decode(content, size is not None, self._draft(box))
        results['img'] = self.cut(pixels, box, pixels.shape[1] / width)
        results['thumbnail'] = thumbnail(pixels)
        results['ori_shape'] = height, width
        results['img_shape'] = results['img'][0].shape[:2]

    def _draft(self, box: Box) -> int:
        """How many times smaller the image can be decoded, for a crop that is then still no smaller than its views."""
        _, _, h, w = box
        widest, highest = (max(sides) for sides in zip(*(view for view, _ in self.views), strict=True))
        return next((factor for factor in DRAFTS if w >= factor * widest and h >= factor * highest), 1)

    def cut(self, pixels: np.ndarray, box: Box, scale: float) -> list[np.ndarray]:
        """The views of a box, of an image of which `pixels` are `scale` times as large."""
        top, left, h, w = (round(side * scale) for side in box)
        crop = np.ascontiguousarray(pixels[top : top + h, left : left + w])  # each resize would make its own copy
        # Axes are moved by NumPy, in less time. In this order, with strides of a batch, it is seen to be channels-last.
        crop = torch.from_numpy(crop.reshape(1, *crop.shape).transpose(0, 3, 1, 2))
        made = {}
        for (width, height), mode in set(self.views):
            resized = interpolate(crop, (height, width), mode=mode, antialias=True).numpy()[0]
            made[(width, height), mode] = np.ascontiguousarray(resized.transpose(1, 2, 0))
        return [made[view] for view in self.views]


def jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG file of three components of 8 bits, or None of any other, and of a bomb.

    Pillow would parse everything that stands before the pixels for what these few bytes say.
    """
    if not content.startswith(JPEG_START):
        return None
    at = len(JPEG_START)
    while at + 10 <= len(content) and content[at] == 0xFF and content[at + 1] not in JPEG_OTHERS:
        if content[at + 1] in JPEG_FRAMES:
            bits, height, width, components = struct.unpack_from('>BHHB', content, at + 4)
            known = bits == 8 and components == 3 and 0 < width * height <= (Image.MAX_IMAGE_PIXELS or width * height)
            return (width, height) if known else None
        at += 2 + int.from_bytes(content[at + 2 : at + 4], 'big')
    return None


def pillow_size(content: bytes) -> tuple[int, int]:
    """Width and height of a file of any format; nothing is decoded."""
    with Image.open(io.BytesIO(content)) as image:
        return image.size


def decode(content: bytes, jpeg: bool, draft: int = 1) -> np.ndarray:
    """RGB pixels (height, width, 3) uint8 of a file, of a JPEG perhaps so many times smaller.

    OpenCV decodes whole JPEG files in RGB, faster than Pillow and to the same pixels; of one that is cut off it would
    make up the rest, and Pillow raises.

    Args:
        content: Of the file.
        jpeg: Whether :func:`jpeg_size` knows it.
        draft: 1, 2, 4 or 8.
    """
    if jpeg and content.rstrip(b'\0').endswith(JPEG_END):
        flags = AS_STORED | DRAFTS[draft] if draft > 1 else AS_STORED
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        if pixels is not None:
            return pixels
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image.convert('RGB'))


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Pixels of an image, as far from each other as leaves `THUMBNAIL` of them on its short side."""
    height, width = pixels.shape[:2]
    step = max(1, min(height, width) // THUMBNAIL)
    return cv2.resize(pixels, (width // step, height // step), interpolation=cv2.INTER_NEAREST)


@TRANSFORMS.register_module()
class JitterViews(BaseTransform):
    """Change the colours of all views alike, and mirror all of them or none.

    Reads `img` and `thumbnail` of :class:`LoadTwoViews`; replaces `img` by arrays of the same kind. Draws from Python's
    `random`.

    Args:
        brightness, contrast, saturation: Factors are drawn from `[max(0, 1 - x), 1 + x]`, and applied in random order,
            as torchvision's `ColorJitter` does.
        flip_prob: Probability of mirroring from left to right.
        on_device: Whether it is left to :class:`mmbeit.models.data_preprocessors.MIMDataPreprocessor`, which does the
            same in batches, on the GPU. Then the views are the same, as tensors (height, width, 3), and `img` has two
            more: changes of colour (n, 3, 4) float32, and whether to mirror, a bool.
    """

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        flip_prob: float = 0.5,
        on_device: bool = False,
    ):
        given = ((adjust_brightness, brightness), (adjust_contrast, contrast), (adjust_saturation, saturation))
        self.changes = [(change, max(0.0, 1 - most), 1 + most) for change, most in given if most]
        self.flip_prob = flip_prob
        self.on_device = on_device

    def transform(self, results: dict) -> dict:
        jitter = self._draw(results.pop('thumbnail'))
        flip = random.random() < self.flip_prob
        if self.on_device:
            views = [torch.from_numpy(view) for view in results['img']]
            results['img'] = [*views, torch.from_numpy(jitter), torch.from_numpy(np.array(flip))]
        else:
            results['img'] = [jittered(view, jitter, flip) for view in results['img']]
        return results

    def _draw(self, whole: np.ndarray) -> np.ndarray:
        """Changes of colour (n, 3, 4) float32, for an image that is known as a whole, be it small."""
        jitter = []  # lists of numbers: each call into NumPy takes longer than all that is computed here
        for change, least, most in random.sample(self.changes, len(self.changes)):
            if change is adjust_contrast:
                for earlier in jitter:
                    whole = cv2.transform(whole, np.array(earlier, np.float32))
            jitter.append(change(random.uniform(least, most), whole))
        return np.array(jitter, np.float32).reshape(-1, 3, 4)


def on_the_way(steps: Sequence[dict]) -> list[dict]:
    """Configs of the same transforms, with nothing left to the device."""
    return [{key: value for key, value in step.items() if key != 'on_device'} for step in steps]


def jittered(view: np.ndarray, jitter: np.ndarray, flip: bool) -> np.ndarray:
    """A view (height, width, 3) uint8 after some changes (n, 3, 4), each rounded and cut off outside of [0, 255]."""
    for change in jitter:
        view = cv2.transform(view, change)
    return cv2.flip(view, 1) if flip else view


# ---- changes of colour, of an image that is known as a whole: matrices (3, 4) of R, G, B and 1 ----

Change = list[list[float]]


def matrix(own: float, grey: float = 0.0, constant: float = 0.0) -> Change:
    """Of each colour so many times itself, and the grey of the pixel, and a constant."""
    r, g, b = (grey * share for share in GREY)
    return [[own + r, g, b, constant], [r, own + g, b, constant], [r, g, own + b, constant]]


def adjust_brightness(factor: float, whole: np.ndarray) -> Change:
    return matrix(factor)


def adjust_contrast(factor: float, whole: np.ndarray) -> Change:
    """Away from the mean grey of the whole image, or towards it."""
    mean = int(cv2.mean(cv2.cvtColor(whole, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return matrix(factor, constant=(1 - factor) * mean)


def adjust_saturation(factor: float, whole: np.ndarray) -> Change:
    """Away from the grey of each pixel, or towards it."""
    return matrix(factor, grey=1 - factor)
