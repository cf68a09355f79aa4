"""From pictures to classes, features and visual tokens.

Every inferencer is called alike. It takes one picture, a list of pictures or a folder, see
:func:`mmbeit.apis.images.read_image` for what a picture may be, prepares them as the weights expect it, and gives one
result, a list of results, or a dict of results by path. In a list or a folder a picture that cannot be read is warned
of and has the result None, and the others go on; a single one raises.
"""

import os
import random
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor, nn

from mmbeit.apis.data import DataConfig
from mmbeit.apis.images import ImageError, list_images, read_image
from mmbeit.apis.model import data_config_of, get_model
from mmbeit.apis.progress import track
from mmbeit.datasets.transforms.mask import BlockwiseMask
from mmbeit.models.backbones.beit import BEiT

NUM_MASKED = 75 / 196  # of the patches, in the papers


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

    @abstractmethod
    def predict(self, images: list[Image.Image], indices: list[int], **options: Any) -> list[Any]:
        """Results for a batch of RGB pictures, of which `indices` are the places in the input."""

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
            return dict(zip(map(str, paths), self(paths, batch_size, **options), strict=True))
        if not isinstance(inputs, (list, tuple)):
            return self._run([read_image(inputs)], [0], options)[0]
        results, images, indices = [None] * len(inputs), [], []
        for i, source in enumerate(track(inputs, len(inputs), type(self).__name__)):
            try:
                images.append(read_image(source))
                indices.append(i)
            except ImageError as error:
                warnings.warn(f'{error}; its result is None', stacklevel=2)
            if images and (len(images) == batch_size or i == len(inputs) - 1):
                for place, result in zip(indices, self._run(images, indices, options), strict=True):
                    results[place] = result
                images, indices = [], []
        return results

    @torch.no_grad()
    def _run(self, images: list[Image.Image], indices: list[int], options: dict) -> list[Any]:
        return self.predict(images, indices, **options)

    def batch(self, images: list[Image.Image], data: DataConfig | None = None) -> Tensor:
        """The pictures as the model takes them, on its device: (B, 3, height, width)."""
        return (data or self.data)(images).to(next(self.model.parameters()).device)


class ImageClassificationInferencer(Inferencer):
    """Classes of pictures.

    A result is a dict as mmpretrain's: `pred_scores` (K,) float32 array of the classes' probabilities, `pred_label` and
    `pred_score` of the likeliest, and its name, `pred_class`, where the names are known.

    Args:
        model, pretrained, device, data, overrides: See :class:`Inferencer`.
        classes: Names of the classes; by default those of the checkpoint or of the data set of the config.
    """

    def __init__(self, *args: Any, classes: Sequence[str] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.classes = classes or getattr(self.model, '_dataset_meta', {}).get('classes')

    def predict(self, images: list[Image.Image], indices: list[int]) -> list[dict]:
        results = []
        for sample in self.model(self.batch(images), mode='predict'):
            scores = sample.pred_score.float().cpu()
            label = int(scores.argmax())
            result = dict(pred_scores=scores.numpy(), pred_label=label, pred_score=float(scores[label]))
            if self.classes and len(self.classes) == len(scores):
                result['pred_class'] = self.classes[label]
            results.append(result)
        return results


class FeatureExtractor(Inferencer):
    """Features of pictures, of any model with the backbone of BEiT, at any size.

    A result is a dict of float32 tensors on the CPU, for a width D and a grid of h x w patches:

    - `pooled` (D,): the mean of the last block's patches, normalised as the classifier sees it where there is one.
    - `cls_token` (D,): the class token of the last block.
    - `cls_tokens` (L, D) and `maps` (L, D, h, w): class token and patches after each of the L blocks of `layers`.
    """

    def predict(
        self,
        images: list[Image.Image],
        indices: list[int],
        layers: int | Sequence[int] = -1,
        size: int | Sequence[int] | None = None,
    ) -> list[dict]:
        """See the class.

        Args:
            images: RGB pictures.
            indices: Not used.
            layers: Blocks, 0-based, negative from the end; they come in the order given.
            size: Of the pictures that the model gets, in pixels, one number or (height, width); by default the
                model's. The share of the picture that is cropped off stays the same.

        Raises:
            ValueError: There are no such blocks, or the size is not a whole number of patches.
        """
        backbone = backbone_of(self.model)
        depth = len(backbone.blocks)
        layers = [layers] if isinstance(layers, int) else list(layers)
        if not all(-depth <= i < depth for i in layers):
            raise ValueError(f'layers {layers} do not fit the {depth} blocks of the model')
        layers = [i % depth for i in layers]
        x = self.batch(images, sized(self.data, size, backbone.patch_size))
        grid = x.shape[-2] // backbone.patch_size, x.shape[-1] // backbone.patch_size
        wanted = sorted({*layers, depth - 1})
        tokens = dict(zip(wanted, backbone.block_tokens(x, None, wanted), strict=True))
        last = tokens[depth - 1]
        pooled = last[:, 1:].mean(dim=1)
        results = dict(
            pooled=pooled if backbone.fc_norm is None else backbone.fc_norm(pooled),
            cls_token=last[:, 0],
            cls_tokens=torch.stack([tokens[i][:, 0] for i in layers], dim=1),
            maps=torch.stack([tokens[i][:, 1:].transpose(1, 2).unflatten(2, grid) for i in layers], dim=1),
        )
        results = {name: values.float().cpu() for name, values in results.items()}
        return [{name: values[b] for name, values in results.items()} for b in range(len(images))]


class MaskedImageModelingInferencer(Inferencer):
    """Visual tokens that a pretrained model predicts for patches that it does not see.

    A result is a dict, for a grid of h x w patches, M of them masked, and a codebook of K codes:

    - `mask` (h, w) bool tensor, True = masked.
    - `logits` (M, K) float32 and `pred_ids` (M,) long, row by row, on the CPU.
    - where the tokenizer has a decoder: `reconstruction`, a :class:`mmbeit.apis.reconstruction.Reconstruction` of this
      one image, and `picture`, what the tokenizer makes of the predicted tokens, as a picture of Pillow.

    A decoder is asked for with `target_generator=dict(decoder=True, init_cfg=[...])`. Without one the tokenizer's
    weights are not needed, and not loaded.
    """

    def predict(
        self,
        images: list[Image.Image],
        indices: list[int],
        mask: Any = None,
        seed: int = 0,
        num_masked: int | None = None,
    ) -> list[dict]:
        """See the class.

        Args:
            images: RGB pictures.
            indices: Their places in the input.
            mask: (h, w) or (h*w,), True or 1 = masked, for all pictures; or one for each, (number, h, w) or
                (number, h*w). By default they are drawn, as the recipe of the model does.
            seed: Of the drawn masks. The mask of a picture depends on the seed and its place alone.
            num_masked: How many patches are masked where masks are drawn; by default what the recipe says.

        Raises:
            ValueError: The mask does not fit the patches; the message gives both numbers.
        """
        model, (h, w) = self.model, backbone_of(self.model).grid
        data = sized(self.data, [side * model.backbone.patch_size for side in (h, w)], model.backbone.patch_size)
        if mask is None:
            draw = _mask_transform(model, num_masked)
            masks = torch.from_numpy(np.stack([_seeded(lambda: draw({})['mask'], seed + i) for i in indices])).bool()
        else:
            masks = _masks_of(mask, indices, (h, w))
        view = self.batch(images, data)
        flat = masks.flatten(1).to(view.device)
        logits = model.predict_tokens(view, flat).float().cpu().split(masks.flatten(1).sum(1).tolist())
        results = [
            dict(mask=one, logits=scores, pred_ids=scores.argmax(1)) for one, scores in zip(masks, logits, strict=True)
        ]
        if getattr(model.target_generator, 'decoder', None) is not None:
            for result, parts in zip(results, self._reconstruct(images, view, masks), strict=True):
                pixels = parts.from_prediction.permute(1, 2, 0).mul(255).round().byte().numpy()
                result.update(reconstruction=parts, picture=Image.fromarray(pixels))
        return results

    def _reconstruct(self, images: list[Image.Image], view: Tensor, masks: Tensor) -> Iterator:
        from mmbeit.apis.reconstruction import Reconstruction, reconstruct  # needs matplotlib

        stride = self.model.target_generator.stride
        size = tuple(side * stride for side in masks.shape[1:])
        data = DataConfig((0,) * 3, (255,) * 3, size, self.data.crop, 'lanczos')
        whole = reconstruct(self.model, view, self.batch(images, data), masks.to(view.device))
        for i in range(len(images)):
            yield Reconstruction(*(part[i].cpu() for part in whole))


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


def backbone_of(model: nn.Module) -> BEiT:
    """The BEiT backbone of a model.

    Raises:
        TypeError: It has another one, or none.
    """
    backbone = model if isinstance(model, BEiT) else getattr(model, 'backbone', None)
    if not isinstance(backbone, BEiT):
        raise TypeError(f'{type(model).__name__} has no backbone of type mmbeit.BEiT')
    return backbone


def sized(data: DataConfig, size: int | Sequence[int] | None, patch_size: int) -> DataConfig:
    """The data config at a size, which has to be a whole number of patches."""
    data = data if size is None else data.at_size(size)
    if any(side <= 0 or side % patch_size for side in data.size):
        raise ValueError(f'size {data.size} is not a whole number of patches of {patch_size} pixels')
    return data


def _masks_of(mask: Any, indices: list[int], grid: tuple[int, int]) -> Tensor:
    """The given masks of the pictures at these places: (B, h, w) bool."""
    given = torch.as_tensor(mask if isinstance(mask, Tensor) else np.asarray(mask)).bool().cpu()
    count = grid[0] * grid[1]
    if given.numel() == count:
        return given.reshape(1, *grid).expand(len(indices), -1, -1)
    if given.ndim < 2 or given[0].numel() != count or len(given) <= max(indices):
        raise ValueError(
            f'a mask of {tuple(given.shape)} for a grid of {grid} patches: expected one for all or one for each picture'
        )
    return given[indices].reshape(-1, *grid)


def _mask_transform(model: nn.Module, num_masked: int | None) -> BlockwiseMask:
    """The recipe's, or one in proportion where the recipe has another grid or does not say."""
    grid = model.backbone.grid
    cfg = getattr(model, '_config', None) or {}
    steps = (cfg.get('train_dataloader') or {}).get('dataset', {}).get('pipeline', ())
    for step in steps:
        options = {key: value for key, value in step.items() if key != 'type'}
        if step['type'] == 'mmbeit.BlockwiseMask' and BlockwiseMask(**options).grid == grid:
            return BlockwiseMask(**{**options, 'num_masked': num_masked or options['num_masked']})
    num_masked = num_masked or max(1, round(NUM_MASKED * grid[0] * grid[1]))
    return BlockwiseMask(grid, num_masked, min_block=min(16, max(1, num_masked // 4)))


def _seeded(function: Callable[[], Any], seed: int) -> Any:
    """Call a function that draws from the global generators, and leave those as they were."""
    with _generators_kept():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        return function()


@contextmanager
def _generators_kept() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def inference_model(model: nn.Module | str | os.PathLike | Config, inputs: Any, **options: Any) -> Any:
    """Run a model on pictures, in one call. To run it often, keep an inferencer.

    Args:
        model: A model, or what :func:`mmbeit.get_model` takes.
        inputs: A picture, a list of pictures, or a folder.
        options: Of the inferencer that fits, :class:`ImageClassificationInferencer` or
            :class:`MaskedImageModelingInferencer`, or of its call.

    Returns:
        A result, a list of results, or a dict of results by path, see the inferencer.

    Raises:
        TypeError: The model neither classifies nor predicts tokens: :class:`FeatureExtractor` is for all.
    """
    call = {key: options.pop(key) for key in ('batch_size', 'mask', 'seed', 'num_masked') if key in options}
    inferencer = {key: options.pop(key) for key in ('classes', 'data') if key in options}
    model = prepare_model(model, **options)
    if hasattr(model, 'predict_tokens'):
        kind = MaskedImageModelingInferencer
    elif hasattr(getattr(model, 'head', None), 'predict'):
        kind = ImageClassificationInferencer
    else:
        raise TypeError(f'{type(model).__name__} neither classifies nor predicts tokens; FeatureExtractor is for all')
    return kind(model, **inferencer)(inputs, **call)
