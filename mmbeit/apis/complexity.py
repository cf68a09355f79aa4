"""Parameters and multiply-adds of a model, without weights and without memory for them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

FILES = ('answers', 'tokenizer')
TEXT_LENGTH = 64  # ids of a text, as in the official code, which pads to that
FLOPS_PER_NORMED_ELEMENT = 5  # mmengine's estimate for a norm with weight and bias, mmengine/analysis/jit_handles.py


class Complexity(NamedTuple):
    """What a model costs. `parameters` and `flops` map parts and operators to counts."""

    parameters: dict[str, int]
    flops: dict[str, int]

    @property
    def num_parameters(self) -> int:
        return sum(self.parameters.values())

    @property
    def num_flops(self) -> int:
        return sum(self.flops.values())


def build_on_meta(cfg: Config) -> nn.Module:
    """The model of a config in eval mode, under the config's default scope, with shapes but without values.

    Files that only say what outputs mean, of answers and of a text tokenizer, need not be there.
    """
    model = without_files(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')), torch.device('meta'):
        return MODELS.build(model).eval()


def without_files(cfg: dict) -> dict:
    """The config of a model without `answers` and `tokenizer` that are names of files."""
    kept = {key: value for key, value in cfg.items() if key not in FILES or not isinstance(value, str)}
    return {key: without_files(value) if isinstance(value, dict) else value for key, value in kept.items()}


def image_size(cfg: Config) -> tuple[int, int]:
    """Height and width in pixels of the images that a config's backbone, or its tokenizer, is for.

    Raises:
        ValueError: The config has no `model.backbone.img_size`.
    """
    parts = (cfg.model.get(part, {}) for part in ('backbone', 'tokenizer'))
    size = next((part['img_size'] for part in parts if 'img_size' in part), None)
    if size is None:
        raise ValueError('the config has no model.backbone.img_size: say the size of the images')
    return (size, size) if isinstance(size, int) else tuple(size)


def complexity(model: nn.Module, size: Sequence[int]) -> Complexity:
    """Count the parameters of a model, and what it computes for one image.

    A multiply-add is one FLOP, and a norm costs five for each element, as mmengine and mmpretrain's tables count;
    but what fused attention computes is counted, too. As in those tables it is the features that are counted
    (`extract_feat`: backbone and neck), and not the classifier. Of a model without `extract_feat` it is what a call
    computes: of a discrete VAE the encoder, of VQ-KD encoder and decoder. Models of BEiT-3 that take a text get one of
    64 ids with the image, or with the two images of NLVR2.
    Resizing a position table is not counted: it happens once. A model on the meta device needs no memory.

    Args:
        model: In eval mode, on any device.
        size: Height and width of the image in pixels.

    Returns:
        Parameters by part (the model's children, in order) and FLOPs by operator (by cost, descending).
    """
    parameters = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    parameters[''] = sum(p.numel() for p in model.parameters()) - sum(parameters.values())
    features = getattr(model, 'extract_feat', model)
    inputs = inputs_of(model, size)
    # FlopCounterMode takes two FLOPs for a multiply-add.
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.native_layer_norm: _layer_norm_flops})
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # as matrix products, which are counted on every device
        features(*inputs)  # fills the caches of position biases
        with counter:
            features(*inputs)
    flops = {str(op).rpartition('.')[2]: count // 2 for op, count in counter.get_flop_counts()['Global'].items()}
    return Complexity(
        parameters={name: count for name, count in parameters.items() if count},
        flops=dict(sorted(flops.items(), key=lambda item: -item[1])),
    )


def inputs_of(model: nn.Module, size: Sequence[int]) -> tuple:
    """An image, and for models that take texts a sample with one, on the device of the model."""
    from mmbeit.models import Captioner, DualEncoder, FusionEncoder

    images = torch.zeros(1, 3, *size, device=next(model.parameters()).device)
    if not isinstance(model, (Captioner, DualEncoder, FusionEncoder)):
        return (images,)
    from mmpretrain.structures import DataSample

    num_images = getattr(getattr(model, 'head', None), 'num_images', 1)
    if num_images > 1:
        images = images[:, None].expand(-1, num_images, -1, -1, -1)
    return images, [DataSample(text_ids=[0] * TEXT_LENGTH)]


def _layer_norm_flops(x_shape: Sequence[int], *args, **kwargs) -> int:
    return 2 * FLOPS_PER_NORMED_ELEMENT * torch.Size(x_shape).numel()
