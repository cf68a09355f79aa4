"""RandAugment of BEiT-3's recipes of VQA and captioning (unilm:beit3/randaug.py)."""

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from mmbeit.registry import TRANSFORMS

GREY = (128, 128, 128)
OVERFLOWS = ('clip', 'wrap')


def auto_contrast(image: np.ndarray, overflow: str) -> np.ndarray:
    """Stretch each channel to [0, 255]. With 'wrap' every channel whose darkest value is not 0 becomes white."""
    out = np.empty_like(image)
    for c in range(image.shape[2]):
        channel = image[..., c]
        low, high = int(channel.min()), int(channel.max())
        if high <= low:
            out[..., c] = channel
            continue
        scale = 255 / (high - low)
        offset = -low if overflow == 'clip' else -low % 256  # negated as an unsigned byte
        table = np.arange(256) * scale + offset * scale
        out[..., c] = table.clip(0, 255).astype(np.uint8)[channel]
    return out


def equalize(image: np.ndarray) -> np.ndarray:
    """Make the histogram of each channel flat, as Pillow does."""
    out = np.empty_like(image)
    for c in range(image.shape[2]):
        channel = image[..., c]
        counts = np.bincount(channel.ravel(), minlength=256)
        step = (counts.sum() - counts[channel.max()]) // 255
        if step:
            table = (step // 2 + np.cumsum(counts) - counts) // step
            channel = table.clip(0, 255).astype(np.uint8)[channel]
        out[..., c] = channel
    return out


def brighten(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply all values."""
    return (np.arange(256, dtype=np.float32) * np.float32(factor)).clip(0, 255).astype(np.uint8)[image]


def sharpen(image: np.ndarray, factor: float, overflow: str) -> np.ndarray:
    """Move away from a smoothed image, but for the border. With 'wrap' what leaves [0, 255] enters at the other end."""
    kernel = np.ones((3, 3), dtype=np.float32)
    kernel[1, 1] = 5
    smooth = cv2.filter2D(image, -1, kernel / 13)[1:-1, 1:-1].astype(np.float32)
    inner = smooth + factor * (image[1:-1, 1:-1].astype(np.float32) - smooth)
    out = image.copy()
    inner = inner.clip(0, 255) if overflow == 'clip' else inner.astype(np.int32) & 255
    out[1:-1, 1:-1] = inner.astype(np.uint8)
    return out


def warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Move pixels by an affine map (2, 3), bilinearly; grey comes in from outside."""
    height, width = image.shape[:2]
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=GREY)


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turn around the centre."""
    height, width = image.shape[:2]
    return warp(image, cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1))


OPS = (
    *('Identity', 'AutoContrast', 'Equalize', 'Brightness', 'Sharpness'),
    *('ShearX', 'ShearY', 'TranslateX', 'TranslateY', 'Rotate'),
)


@TRANSFORMS.register_module()
class RandAugment(BaseTransform):
    """Some of ten gentle changes, drawn with replacement, each applied with some probability.

    Nothing, contrast, equalisation, brightness and sharpness, which only increase, shear, shift and rotation. A shift
    has as many pixels in images of any size. mmpretrain's `RandAugment` has other ranges and operations that round
    otherwise; its preset of timm is far stronger.

    Reads and replaces `img`, an array (height, width, 3) uint8 of any order of channels. Draws from NumPy's global
    generator, in the official order.

    Args:
        num_ops: How many are drawn.
        level: How strong they are, 0 to 10. At 7 the factors are 1.36, shear 0.21, shift 7 pixels, rotation 21 degrees.
        prob: With which probability an operation that was drawn is applied.
        overflow: What happens to values beyond [0, 255] in AutoContrast and Sharpness: 'clip' is what is meant, 'wrap'
            is what the official code does, by which its weights were trained: channels become white, and edges flip.

    Raises:
        ValueError: `overflow` or `level` is not among the accepted values.
    """

    def __init__(self, num_ops: int = 2, level: float = 7, prob: float = 0.5, overflow: str = 'clip'):
        if overflow not in OVERFLOWS:
            raise ValueError(f'overflow {overflow!r} is not one of {OVERFLOWS}')
        if not 0 <= level <= 10:
            raise ValueError(f'level ({level}) is not between 0 and 10')
        self.num_ops = num_ops
        self.strength = level / 10
        self.prob = prob
        self.overflow = overflow

    def transform(self, results: dict) -> dict:
        for name in np.random.choice(OPS, self.num_ops):
            if np.random.random() <= self.prob:
                results['img'] = self._apply(name, results['img'])
        return results

    def _apply(self, name: str, image: np.ndarray) -> np.ndarray:
        match name:
            case 'AutoContrast':
                return auto_contrast(image, self.overflow)
            case 'Equalize':
                return equalize(image)
            case 'Brightness':
                return brighten(image, self.strength * 1.8 + 0.1)
            case 'Sharpness':
                return sharpen(image, self.strength * 1.8 + 0.1, self.overflow)
            case 'ShearX':
                return warp(image, np.float32([[1, self._signed(0.3), 0], [0, 1, 0]]))
            case 'ShearY':
                return warp(image, np.float32([[1, 0, 0], [self._signed(0.3), 1, 0]]))
            case 'TranslateX':
                return warp(image, np.float32([[1, 0, -self._signed(10)], [0, 1, 0]]))
            case 'TranslateY':
                return warp(image, np.float32([[1, 0, 0], [0, 1, -self._signed(10)]]))
            case 'Rotate':
                return rotate(image, -self._signed(30))
        return image

    def _signed(self, limit: float) -> float:
        """How far, either way."""
        size = self.strength * limit
        return -size if np.random.random() > 0.5 else size
