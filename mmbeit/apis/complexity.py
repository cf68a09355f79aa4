"""Parameters and multiply-adds of a model, without weights and without memory for them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

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
    """The model of a config in eval mode, under the config's default scope, with shapes but without values."""
    model = dict(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')), torch.device('meta'):
        return MODELS.build(model).eval()


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
    computes: of a discrete VAE the encoder, of VQ-KD encoder and decoder.
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
    image = torch.zeros(1, 3, *size, device=next(model.parameters()).device)
    # FlopCounterMode takes two FLOPs for a multiply-add.
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.native_layer_norm: _layer_norm_flops})
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # as matrix products, which are counted on every device
        features(image)  # fills the caches of position biases
        with counter:
            features(image)
    flops = {str(op).rpartition('.')[2]: count // 2 for op, count in counter.get_flop_counts()['Global'].items()}
    return Complexity(
        parameters={name: count for name, count in parameters.items() if count},
        flops=dict(sorted(flops.items(), key=lambda item: -item[1])),
    )


def _layer_norm_flops(x_shape: Sequence[int], *args, **kwargs) -> int:
    return 2 * FLOPS_PER_NORMED_ELEMENT * torch.Size(x_shape).numel()
