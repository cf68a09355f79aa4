"""Loading for segmentation that names the file in which something is wrong."""

import io

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms import LoadImageFromFile as _LoadImageFromFile
from mmengine.fileio import get
from PIL import Image, UnidentifiedImageError

from mmbeit.registry import TRANSFORMS

IGNORED = 255


@TRANSFORMS.register_module()
class LoadImageFromFile(_LoadImageFromFile):
    """mmcv's transform of this name, with the file in the message of an error."""

    def transform(self, results: dict) -> dict | None:
        try:
            return super().transform(results)
        except Exception as error:  # of whatever decodes the file
            reason = ' '.join(str(error).split())  # OpenCV's has lines
            raise ValueError(f'cannot read image {results["img_path"]}: {reason}') from error


@TRANSFORMS.register_module()
class LoadSegMap(BaseTransform):
    """Read the label of every pixel of an image, as mmseg's `LoadAnnotations` does, and refuse what does not fit.

    mmseg's does not name a file that it cannot read, takes a mask of another size than its image, three channels, and
    labels that no class has, of which it drops what is above eight bits; and it fails on a side of one pixel.

    Reads `seg_map_path`, `ori_shape`, `reduce_zero_label` and `label_map`; adds `gt_seg_map`, (height, width) uint8,
    255 = ignored, and its name to `seg_fields`. Without `seg_map_path`, as in inference, there is nothing to read.

    Args:
        num_classes: Classes K that the file knows, less than 255. Its labels are 0 to K - 1; with `reduce_zero_label`
            of the data set they are 1 to K, and 0 is ignored. 255 is ignored, too.
        backend_args: For mmengine's file backends; local files by default.

    Raises:
        ValueError: A file that cannot be read or does not fit; the message names it.
    """

    def __init__(self, num_classes: int, backend_args: dict | None = None):
        if not 0 < num_classes < IGNORED:
            raise ValueError(f'num_classes ({num_classes}) is not between 1 and {IGNORED - 1}: {IGNORED} is ignored')
        self.num_classes = num_classes
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        path = results.get('seg_map_path')
        if path is None:
            return results
        try:
            with Image.open(io.BytesIO(get(path, backend_args=self.backend_args))) as image:
                labels = np.array(image).astype(np.int64)
        except (OSError, UnidentifiedImageError, ValueError) as error:
            raise ValueError(f'cannot read labels {path}: {error}') from error
        if labels.shape != tuple(results['ori_shape']):
            of_image = f'{results["img_path"]} is {" x ".join(map(str, results["ori_shape"]))}'
            raise ValueError(f'labels {path} are {" x ".join(map(str, labels.shape))}, but the image {of_image}')
        reduced, label_map = results['reduce_zero_label'], results.get('label_map') or {}
        new = np.full(257, -1, dtype=np.int16)  # of every label that a file may have, and of all above them
        new[IGNORED] = IGNORED
        new[reduced : reduced + self.num_classes] = [label_map.get(k, k) for k in range(self.num_classes)]
        if reduced:
            new[0] = IGNORED
        found = new[np.minimum(labels, 256)]
        if found.min() < 0:
            unknown = ', '.join(map(str, np.unique(labels[found < 0])[:5]))
            first, last = int(reduced), self.num_classes - 1 + reduced
            raise ValueError(f'labels {path} contain {unknown}: expected {first} to {last}, or {IGNORED} to ignore')
        results['gt_seg_map'] = found.astype(np.uint8)
        results['seg_fields'].append('gt_seg_map')
        return results
