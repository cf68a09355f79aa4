"""Loading and cropping with Pillow, as the official code does."""

import io
import math
import random
import warnings
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import get
from PIL import Image, UnidentifiedImageError

from mmbeit.registry import TRANSFORMS

Box = tuple[int, int, int, int]
ON_ERROR = ('raise', 'skip')


def read_bytes(path: str, backend_args: dict | None) -> bytes:
    """A whole file: of mmengine's backends, or a local one at once, which looking for its backend would double."""
    if backend_args is None and '://' not in str(path):
        with open(path, 'rb') as file:
            return file.read()
    return get(path, backend_args=backend_args)


def checked_on_error(on_error: str) -> str:
    if on_error not in ON_ERROR:
        raise ValueError(f'on_error {on_error!r} is not one of {ON_ERROR}')
    return on_error


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read an image file as RGB.

    Reads `img_path`, and `img_bytes`, the content of that file, where something has read it already; adds `img`, a
    Pillow image, `img_shape` and `ori_shape`, both (height, width).

    Args:
        on_error: What an unreadable file does: 'raise' stops the run with a line that names it; 'skip' warns and lets
            the data set draw another image in its place.
        backend_args: For mmengine's file backends; local files by default.
    """

    def __init__(self, on_error: str = 'raise', backend_args: dict | None = None):
        self.on_error = checked_on_error(on_error)
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict | None:
        path = results['img_path']
        try:
            content = results['img_bytes'] if 'img_bytes' in results else read_bytes(path, self.backend_args)
            self.read(content, results)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
            # Pillow's own message of an unknown format is an address in memory.
            unknown = isinstance(error, UnidentifiedImageError)
            message = f'cannot read image {path}: {"it is of no format of images that is known" if unknown else error}'
            if self.on_error == 'raise':
                raise ValueError(message) from error
            warnings.warn(f'{message}; another image takes its place', stacklevel=2)
            return None
        return results

    def read(self, content: bytes, results: dict) -> None:
        """Add what a file holds to the results."""
        with Image.open(io.BytesIO(content)) as image:
            results['img'] = image.convert('RGB')
        results['img_shape'] = results['ori_shape'] = (results['img'].height, results['img'].width)


def random_crop_box(size: tuple[int, int], scale: Sequence[float], ratio: Sequence[float]) -> Box:
    """Box of a random resized crop (unilm:beit/transforms.py). Draws from Python's `random`.

    Args:
        size: Height and width of the image.
        scale: Smallest and largest share of the image's area.
        ratio: Smallest and largest ratio of width to height.

    Returns:
        Top, left, height and width; after ten tries the largest centred box of an accepted ratio.
    """
    height, width = size
    for _ in range(10):
        area = random.uniform(*scale) * height * width
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = random.randint(0, height - h)
            return top, random.randint(0, width - w), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = min(height, max(1, round(width / ratio[0])))
    elif width / height > ratio[1]:
        w = min(width, max(1, round(height * ratio[1])))
    return (height - h) // 2, (width - w) // 2, h, w


@TRANSFORMS.register_module()
class RandomResizedCropTwoViews(BaseTransform):
    """One random crop at two sizes: what the backbone sees and what the tokenizer sees.

    Reads `img`, a Pillow image; replaces it by a list of two RGB arrays, (size, size, 3) and (target_size,
    target_size, 3), uint8. Both are antialiased.

    Args:
        size: Of the view, in pixels: one number or (height, width).
        target_size: Of the target view; None leaves it out, and the list has one array.
        scale: Smallest and largest share of the area that is cropped.
        ratio: Smallest and largest ratio of width to height of the crop.
        interpolation: Of the view: a name of :class:`PIL.Image.Resampling` in lower case.
        target_interpolation: Of the target view.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        target_size: int | Sequence[int] | None,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = 'bicubic',
        target_interpolation: str = 'lanczos',
    ):
        self.views = []
        for side, name in ((size, interpolation), (target_size, target_interpolation)):
            if side is None:
                continue
            height, width = (side, side) if isinstance(side, int) else side
            if name.upper() not in Image.Resampling.__members__:
                known = ', '.join(Image.Resampling.__members__).lower()
                raise ValueError(f'interpolation {name!r} is not one of {known}')
            self.views.append(((width, height), Image.Resampling[name.upper()]))
        self.scale = scale
        self.ratio = ratio

    def draw_box(self, size: tuple[int, int]) -> Box:
        """A box of an image of this height and width."""
        return random_crop_box(size, self.scale, self.ratio)

    def transform(self, results: dict) -> dict:
        image = results['img']
        top, left, h, w = self.draw_box((image.height, image.width))
        crop = image.crop((left, top, left + w, top + h))
        made = {view: np.array(crop.resize(*view)) for view in set(self.views)}  # in BEiT v2 both are the same
        results['img'] = [made[view] for view in self.views]
        results['img_shape'] = results['img'][0].shape[:2]
        return results
