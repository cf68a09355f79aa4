"""Pictures from wherever they come, as RGB."""

import contextlib
import io
import os
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

TIMEOUT = 30  # seconds, for a URL
SUFFIXES = frozenset(['.bmp', '.gif', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp'])


class ImageError(ValueError):
    """A picture cannot be read. The message is one line that names it."""


def read_image(source: Any) -> Image.Image:
    """Read a picture as 8-bit RGB.

    The orientation that a camera noted is applied, an alpha channel is dropped, greyscale, palette and CMYK are
    converted, and of 16 bits the upper 8 are kept: what the loaders of the recipes do. Of an animation it is the first
    frame.

    Args:
        source: Path, URL, bytes of a file, a picture of Pillow, or an array of uint8 or uint16 as OpenCV has it:
            (height, width), or (height, width, channels) with 1, 3 (BGR) or 4 (BGR and alpha) channels.

    Raises:
        ImageError: It cannot be read.
    """
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(source)
        if isinstance(source, np.ndarray):
            return _from_array(source)
        with Image.open(io.BytesIO(_read(source))) as image:
            return _to_rgb(image)
    except Exception as error:  # the decoders of damaged files raise anything
        reason = ' '.join(str(error).split()) or type(error).__name__
        if 'cannot identify image file' in reason:
            reason = 'it is empty, or no picture that Pillow knows'
        raise ImageError(f'cannot read image {describe(source)}: {reason}') from error


def describe(source: Any) -> str:
    """A short name of a picture for messages."""
    if isinstance(source, (str, os.PathLike)):
        return str(source)
    if isinstance(source, np.ndarray):
        return f'(array of {source.dtype}, {source.shape})'
    if isinstance(source, bytes):
        return f'({len(source)} bytes)'
    return f'({getattr(source, "filename", "") or type(source).__name__})'


def list_images(folder: str | os.PathLike) -> list[Path]:
    """All pictures of a folder and its subfolders, by their suffixes, sorted.

    Raises:
        FileNotFoundError: There are none.
    """
    found = sorted(path for path in Path(folder).rglob('*') if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise FileNotFoundError(f'no images in {folder}: expected files that end in {", ".join(sorted(SUFFIXES))}')
    return found


def _read(source: Any) -> bytes:
    if isinstance(source, bytes):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError('expected a path, a URL, bytes, a picture of Pillow or an array')
    if str(source).startswith(('http://', 'https://')):
        request = urllib.request.Request(str(source), headers={'User-Agent': 'mmbeit'})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return answer.read()
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError('no such file')
    return path.read_bytes()


def _to_rgb(image: Image.Image) -> Image.Image:
    with contextlib.suppress(Exception):  # damaged notes of a camera; damaged pixels show below
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(('I', 'F')):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535 or image.mode == 'F':
            raise ValueError(f'mode {image.mode!r} does not say which value is white')
        # Pillow reads 16 bits as 32, too. A picture of 32 bits that are used is a rarity.
        image = Image.fromarray((pixels.astype(np.uint16) >> 8).astype(np.uint8))
    return image.convert('RGB')


def _from_array(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in (1, 3, 4) or not pixels.size:
        raise TypeError('expected uint8 or uint16, (height, width) or (height, width, 1, 3 or 4)')
    if channels == 1:
        return Image.fromarray(pixels.reshape(pixels.shape[:2])).convert('RGB')
    return Image.fromarray(np.ascontiguousarray(pixels[..., 2::-1]))
