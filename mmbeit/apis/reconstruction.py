"""Pictures of what masked image modeling predicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.figure
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmbeit.models.algorithms.mim import MaskedImageModeling


class Reconstruction(NamedTuple):
    """Of a batch of B images on a grid of h x w patches. Pictures are (B, 3, height, width) in [0, 1]."""

    masked: Tensor  # the target view, grey where masked
    ids: Tensor  # (B, h, w), the tokenizer's tokens
    predicted_ids: Tensor  # (B, h, w), the same but for the masked patches, where they are predicted
    from_tokens: Tensor  # the tokenizer's picture of `ids`
    from_prediction: Tensor  # the tokenizer's picture of `predicted_ids`


@torch.no_grad()
def reconstruct(model: MaskedImageModeling, view: Tensor, target_view: Tensor, mask: Tensor) -> Reconstruction:
    """Predict the tokens of masked patches and decode them.

    Args:
        model: In eval mode, with a target generator that has a decoder.
        view: Normalised images (B, 3, height, width).
        target_view: The same images at the tokenizer's size, in [0, 1].
        mask: (B, h, w) bool, True = masked.

    Raises:
        ValueError: The target generator has no decoder.
    """
    tokenizer = model.target_generator
    ids = tokenizer(target_view).unflatten(1, mask.shape[1:])
    predicted_ids = ids.clone()
    predicted_ids[mask] = model.predict_tokens(view, mask.flatten(1)).argmax(dim=1)
    hidden = mask[:, None].repeat_interleave(target_view.shape[-2] // mask.shape[1], 2)
    hidden = hidden.repeat_interleave(target_view.shape[-1] // mask.shape[2], 3)
    masked = torch.where(hidden, 0.5, target_view)
    return Reconstruction(masked, ids, predicted_ids, tokenizer.decode(ids), tokenizer.decode(predicted_ids))


def load_views(model: MaskedImageModeling, paths: Sequence[str | Path]) -> tuple[Tensor, Tensor]:
    """Whole images, squeezed to the sizes of the two views: normalised, and in [0, 1]; (B, 3, height, width) each."""
    grid, patch = model.backbone.grid, model.backbone.patch_size
    views = []
    for stride, resample in (
        (patch, Image.Resampling.BICUBIC),
        (model.target_generator.stride, Image.Resampling.LANCZOS),
    ):
        size = grid[1] * stride, grid[0] * stride
        images = [np.array(Image.open(path).convert('RGB').resize(size, resample)) for path in paths]
        views.append(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    return model.data_preprocessor({'inputs': views})['inputs']


def draw(images: Tensor, reconstruction: Reconstruction) -> matplotlib.figure.Figure:
    """A row for each image: the image, what is hidden, and the two pictures that the tokenizer makes."""
    columns = {
        'image': images,
        'what BEiT sees': reconstruction.masked,
        "tokenizer's picture": reconstruction.from_tokens,
        'masked patches predicted': reconstruction.from_prediction,
    }
    figure = matplotlib.figure.Figure(figsize=(2.1 * len(columns), 2 * len(images) + 0.4), layout='constrained')
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    for column, (title, pictures) in enumerate(columns.items()):
        axes[0, column].set_title(title, fontsize=10)
        for row, picture in enumerate(pictures):
            axes[row, column].imshow(picture.permute(1, 2, 0).cpu().numpy(), interpolation='nearest')
            axes[row, column].set_axis_off()
    return figure
