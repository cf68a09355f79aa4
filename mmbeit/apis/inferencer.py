"""From pictures to whatever a model says of them: what the inferencers share.

Every inferencer is called alike. It takes one picture, a list of pictures or a folder, see
:func:`mmbeit.apis.images.read_image` for what a picture may be, prepares them as the weights expect it, and gives one
result, a list of results, or a dict of results by path. In a list or a folder a picture that cannot be read is warned
of and has the result None, and the others go on; a single one raises.
"""

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor, nn

from mmbeit.apis.data import DataConfig
from mmbeit.apis.images import ImageError, list_images, read_image
from mmbeit.apis.model import data_config_of, get_model
from mmbeit.apis.progress import track
from mmbeit.models.backbones.base import Backbone


class Place(NamedTuple):
    """Where a picture is in the input."""

    index: int
    name: str  # of its file without the ending, or its number

    @classmethod
    def of(cls, index: int, source: Any) -> 'Place':
        named = isinstance(source, (str, os.PathLike))
        return cls(index, Path(source).stem if named else f'{index:06d}')


class Inferencer(ABC):
    """What the inferencers share.

    Args:
        model: A model, or what :func:`mmbeit.get_model` takes.
        pretrained: For :func:`mmbeit.get_model`; by default the published weights.
        device: Where to run; by default a model stays where it is, and a new one goes to the GPU if there is one.
        data: What the weights expect of an image, if it is not what the model says.
        overrides: For :func:`mmbeit.get_model`.
    """

    def __init__(
        self,
        model: nn.Module | str | os.PathLike | Config,
        pretrained: bool | str | os.PathLike = True,
        device: str | torch.device | None = None,
        data: DataConfig | None = None,
        **overrides: Any,
    ):
        self.model = prepare_model(model, pretrained, device, **overrides)
        self.data = data or data_config_of(self.model)

    @staticmethod
    @abstractmethod
    def fits(model: nn.Module) -> bool:
        """Whether this is the inferencer for a model that somebody wants to use without naming one."""

    @abstractmethod
    def predict(self, images: list[Image.Image], places: list[Place], **options: Any) -> list[Any]:
        """Results for a batch of RGB pictures, which are from these places of the input."""

    @staticmethod
    def is_one(inputs: Any) -> bool:
        """Whether this is one input, not many of them."""
        return not isinstance(inputs, (list, tuple))

    @staticmethod
    def read(source: Any) -> Any:
        """What `predict` gets a list of."""
        return read_image(source)

    def __call__(self, inputs: Any, batch_size: int = 8, **options: Any) -> Any:
        """Run.

        Args:
            inputs: A picture, a list or tuple of pictures, or a folder, which is searched with its subfolders.
            batch_size: How many run at once.
            options: Of the inferencer.

        Returns:
            A result, a list of results, or a dict of results by path. None stands for what could not be read.

        Raises:
            ImageError: The one picture cannot be read.
            FileNotFoundError: The folder has no pictures.
        """
        if isinstance(inputs, (str, os.PathLike)) and Path(inputs).is_dir():
            paths = list_images(inputs)
            return dict(zip(map(str, paths), self(paths, batch_size=batch_size, **options), strict=True))
        if self.is_one(inputs):
            return self._run([self.read(inputs)], [Place.of(0, inputs)], options)[0]
        results, images, places = [None] * len(inputs), [], []
        for i, source in enumerate(track(inputs, len(inputs), type(self).__name__)):
            try:
                images.append(self.read(source))
                places.append(Place.of(i, source))
            except ImageError as error:
                warnings.warn(f'{error}; its result is None', stacklevel=2)
            if images and (len(images) == batch_size or i == len(inputs) - 1):
                for place, result in zip(places, self._run(images, places, options), strict=True):
                    results[place.index] = result
                images, places = [], []
        return results

    @torch.no_grad()
    def _run(self, images: list, places: list[Place], options: dict) -> list[Any]:
        return self.predict(images, places, **options)

    def batch(self, images: list[Image.Image], data: DataConfig | None = None) -> Tensor:
        """The pictures as the model takes them, on its device: (B, 3, height, width)."""
        return (data or self.data)(images).to(next(self.model.parameters()).device)


def prepare_model(
    model: nn.Module | str | os.PathLike | Config,
    pretrained: bool | str | os.PathLike = True,
    device: str | torch.device | None = None,
    **overrides: Any,
) -> nn.Module:
    """A model in eval mode, where it is to run. The arguments are those of :class:`Inferencer`."""
    if not isinstance(model, nn.Module):
        return get_model(model, pretrained, device or ('cuda' if torch.cuda.is_available() else 'cpu'), **overrides)
    if overrides:
        raise TypeError(f'{", ".join(overrides)}: a model that is built cannot be changed')
    if device is not None:
        model.to(device)
    model.eval()  # some give None back
    return model


def backbone_of(model: nn.Module) -> Backbone:
    """The backbone of a model.

    Raises:
        TypeError: It has another one, or none.
    """
    backbone = model if isinstance(model, Backbone) else getattr(model, 'backbone', None)
    if not isinstance(backbone, Backbone):
        raise TypeError(f'{type(model).__name__} has no backbone of type mmbeit.BEiT or mmbeit.BEiT3')
    return backbone


def sized(data: DataConfig, size: int | Sequence[int] | None, patch_size: int) -> DataConfig:
    """The data config at a size, which has to be a whole number of patches."""
    data = data if size is None else data.at_size(size)
    if any(side <= 0 or side % patch_size for side in data.size):
        raise ValueError(f'size {data.size} is not a whole number of patches of {patch_size} pixels')
    return data
