"""From a collated batch to what a model takes."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mmbeit.layers.autocast import no_autocast
from mmbeit.registry import MODELS


@MODELS.register_module()
class MIMDataPreprocessor(BaseDataPreprocessor):
    """Normalises the view of the backbone; leaves the target view in [0, 1], for a tokenizer normalises by itself.

    Colours are changed and views mirrored first, where :class:`mmbeit.datasets.transforms.fast.JitterViews` says how.
    What stands in the place of the target view and is no picture, such as stored tokens, is passed on as it is.

    Args:
        mean: Of the three channels R, G, B, in [0, 255].
        std: Likewise.
        non_blocking: Whether to copy to the device without waiting.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], non_blocking: bool = True):
        super().__init__(non_blocking)
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Cast to the device and scale.

        Args:
            data: `inputs`: RGB images in [0, 255], one view or a list of two, each (B, 3, height, width) or a list of
                (3, height, width), the second one may be ids (B, N). Or views (B, height, width, 3), and two tensors
                more that say what :func:`jittered` does to them. `data_samples`: anything, passed on.
            training: Not used.

        Returns:
            `inputs`: (view, target view or ids), or the view alone where one was given; `data_samples`.
        """
        views = self.cast_data(data['inputs'])  # masks are needed on the CPU first, and in one piece
        one_view = isinstance(views, Tensor) or (isinstance(views[0], Tensor) and views[0].ndim == 3)
        view, *rest = [stack(view) for view in ([views] if one_view else views)]
        if len(rest) > 1:
            *rest, jitter, flip = rest
            view, *rest = [jittered(image, jitter, flip) for image in (view, *rest)]
        inputs = (view.float() - self.mean) / self.std
        if rest:
            target = rest[0]
            inputs = inputs, target.float() / 255 if target.ndim == 4 else target
        return {'inputs': inputs, 'data_samples': data.get('data_samples')}


def jittered(images: Tensor, jitter: Tensor, flip: Tensor) -> Tensor:
    """Change colours and mirror, each image by itself, as :func:`mmbeit.datasets.transforms.fast.jittered` does.

    Args:
        images: (B, height, width, 3) in [0, 255].
        jitter: Changes of colour (B, n, 3, 4), one after the other: of R, G, B and 1.
        flip: Which are mirrored from left to right (B,) bool.

    Returns:
        (B, 3, height, width), float32, whole numbers in [0, 255].
    """
    x = images.permute(0, 3, 1, 2).float().contiguous()
    height, width = x.shape[2:]
    x = x.flatten(2)
    with no_autocast(x):
        for change in jitter.unbind(1):
            x = torch.baddbmm(change[..., 3:], change[..., :3], x).round_().clamp_(0, 255)
    x = x.unflatten(2, (height, width))
    return torch.where(flip[:, None, None, None], x.flip(3), x)


@MODELS.register_module()
class MDMDataPreprocessor(BaseDataPreprocessor):
    """Several batches at once: of images, of texts, and of both, for masked data modeling.

    Args:
        mean, std, non_blocking: As for :class:`MIMDataPreprocessor`, which the images go through.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], non_blocking: bool = True):
        super().__init__(non_blocking)
        self.images = MIMDataPreprocessor(mean, std, non_blocking)

    def forward(self, data: dict[str, dict], training: bool = False) -> dict[str, dict]:
        """Cast images to the device and scale them, each batch by itself. Texts and masks are batched by the model.

        Args:
            data: Batches by name, with `inputs` where there are images, and `data_samples`.
            training: Not used.
        """
        return {name: self.images(batch) if 'inputs' in batch else batch for name, batch in data.items()}


def stack(images: Tensor | Sequence[Tensor]) -> Tensor:
    return images if isinstance(images, Tensor) else torch.stack(list(images))
