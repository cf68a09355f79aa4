"""Networks of other libraries as teachers of VQ-KD: one feature for each patch."""

from abc import abstractmethod
from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from mmbeit.checkpoint.formats import unwrap
from mmbeit.checkpoint.load import CheckpointError, read_weights
from mmbeit.models.target_generators.base import TargetGenerator
from mmbeit.registry import MODELS


def optional(package: str) -> ModuleType:
    """Import what not everybody needs.

    Raises:
        ImportError: It is not installed; the message says how to.
    """
    try:
        return import_module(package)
    except ImportError as error:
        if error.name and error.name.partition('.')[0] == package:
            raise ImportError(f'this teacher needs {package}: pip install {package}, or mmbeit[teachers]') from error
        raise


class Teacher(TargetGenerator):
    """Features (B, N, D) of images of any size, on the grid of the tokenizer.

    A network with patches of another size than the tokenizer's gets the image resized, so that the numbers of patches
    are equal. Unlike ids, features are none the worse for autocast, which is followed as officially.

    Args:
        stride: Side in pixels of what one code of the tokenizer stands for.
        patch_size: Side in pixels of what one feature of the network stands for.
        embed_dims: Width D of the features.
        mean, std: Of R, G, B, that the network was trained with, of images in [0, 1].
        init_cfg: See :class:`TargetGenerator`. Besides files, folders and URLs, `hf://owner/name` is read.
    """

    follows_autocast = True

    def __init__(
        self,
        stride: int,
        patch_size: int,
        embed_dims: int,
        mean: Sequence[float],
        std: Sequence[float],
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        self.stride = stride
        self.patch_size = patch_size
        self.embed_dims = embed_dims
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Features (B, h*w, D) of normalised images (B, 3, patch_size * h, patch_size * w)."""

    def targets(self, images: Tensor) -> Tensor:
        """Features (B, h*w, D), row by row, of images (B, 3, stride * h, stride * w) in [0, 1]."""
        if self.patch_size != self.stride:
            size = [side // self.stride * self.patch_size for side in images.shape[-2:]]
            images = F.interpolate(images, size=size, mode='bicubic', antialias=True).clamp(0, 1)
        return self.features((images - self.mean) / self.std)

    def read(self, checkpoint: str) -> dict[str, Tensor]:
        """Weights under the names that they have: even if they are of a BEiT, it is not ours that is to take them."""
        if checkpoint.startswith(('http://', 'https://')):
            from mmbeit.apis.weights import resolve_weights

            checkpoint = str(resolve_weights(checkpoint))
        return unwrap(read_weights(checkpoint))


@MODELS.register_module()
class TimmTeacher(Teacher):
    """A model of timm: the last feature map, after the final norm where the model has one before its pooling.

    The teachers of BEiT v2 are `dict(model_name='vit_base_patch16_clip_quickgelu_224.openai', project=True)` and
    `dict(model_name='vit_base_patch16_224.dino')` (unilm:beit2/vqkd_teacher). `init_cfg` reads what the model's own
    loader in timm does: timm's files, and among others OpenAI's and Facebook's state dicts.

    Args:
        model_name: A name of timm's. With its tag it says how images are normalised.
        stride: See :class:`Teacher`.
        project: Whether to apply the model's head to every feature, as CLIP's projection.
        init_cfg: See :class:`Teacher`; `hf://timm/vit_base_patch16_clip_224.openai` is such a file, too.
        kwargs: Of `timm.create_model`, such as `dynamic_img_size=True`, with which a transformer takes images of
            several sizes.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model.
    """

    def __init__(
        self,
        model_name: str,
        *,
        stride: int = 16,
        project: bool = False,
        init_cfg: dict | list[dict] | None = None,
        **kwargs,
    ):
        timm = optional('timm')
        if not timm.is_model(model_name):
            raise ValueError(f'timm has no model {model_name!r}: timm.list_models() gives all names')
        if not project:
            kwargs = {**kwargs, 'num_classes': 0}
        network = timm.create_model(model_name, pretrained=False, **kwargs)
        info, cfg = network.feature_info[-1], network.pretrained_cfg
        width = network.num_classes if project else info['num_chs']
        super().__init__(stride, info['reduction'], width, cfg['mean'], cfg['std'], init_cfg)
        self.project = project
        self.network = network
        self.requires_grad_(False).eval()

    def features(self, images: Tensor) -> Tensor:
        (maps,) = self.network.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
        features = maps.flatten(2).transpose(1, 2)
        return self.network.get_classifier()(features) if self.project else features

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """What timm does with a file: rename it, and leave out a classifier that the model was built without."""
        rename = getattr(import_module(type(self.network).__module__), 'checkpoint_filter_fn', None)
        state = rename(state, self.network) if rename else state
        heads = self.network.pretrained_cfg.get('classifier') or ()
        heads = () if self.project else tuple(f'{head}.' for head in ([heads] if isinstance(heads, str) else heads))
        return {f'network.{key}': value for key, value in state.items() if not key.startswith(heads or '\0')}


@MODELS.register_module()
class TransformersTeacher(Teacher):
    """A vision transformer of transformers: its last hidden state, without class token and registers.

    Args:
        model_class: Name of a class of transformers, such as 'Dinov2Model'.
        config: Of the model: a folder or a repository of the hub that has one, or the values that differ from the
            defaults.
        mean, std: Of R, G, B, that the model was trained with, of images in [0, 1].
        stride: See :class:`Teacher`.
        project: Whether to apply the final norm and the projection to every feature, which CLIP does to one of them:
            for `CLIPVisionModelWithProjection`.
        init_cfg: See :class:`Teacher`. A file may hold more than the model, such as a text encoder.

    Raises:
        ImportError: transformers is not installed.
        ValueError: It has no such class, or the model has no patches.
    """

    def __init__(
        self,
        model_class: str,
        config: str | dict,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        stride: int = 16,
        project: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ):
        transformers = optional('transformers')
        if not hasattr(transformers, model_class):
            raise ValueError(f'transformers has no class {model_class!r}: expected one such as Dinov2Model')
        network_class = getattr(transformers, model_class)
        kind = network_class.config_class
        config = kind.from_pretrained(config) if isinstance(config, str) else kind(**config)
        if not isinstance(getattr(config, 'patch_size', None), int):
            raise ValueError(f'{model_class} has no patch_size in its config: expected a vision transformer')
        width = config.projection_dim if project else config.hidden_size
        super().__init__(stride, config.patch_size, width, mean, std, init_cfg)
        self.project = project
        self.network = network_class(config)
        self.requires_grad_(False).eval()

    def features(self, images: Tensor) -> Tensor:
        # Some resize their position embedding at any time, some when they are told to.
        sized = 'interpolate_pos_encoding' in signature(self.network.forward).parameters
        tokens = self.network(images, **({'interpolate_pos_encoding': True} if sized else {})).last_hidden_state
        num_patches = images.shape[-2] // self.patch_size * (images.shape[-1] // self.patch_size)
        features = tokens[:, -num_patches:]
        if self.project:
            features = self.network.visual_projection(self.network.vision_model.post_layernorm(features))
        return features

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """What transformers does with a file, which may have other names than the model in memory."""
        from transformers.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # of what else the file holds
        try:
            loaded, info = type(self.network).from_pretrained(
                None, config=self.network.config, state_dict=state, output_loading_info=True
            )
        except RuntimeError as error:  # shapes
            raise CheckpointError(f'does not fit {type(self.network).__name__}: {error}') from error
        finally:
            logging.set_verbosity(verbosity)
        if missing := sorted(info['missing_keys']):
            raise CheckpointError(f'{type(loaded).__name__} misses {missing[:4]} ({len(missing)} keys)')
        return {f'network.{key}': value for key, value in loaded.state_dict().items()}
