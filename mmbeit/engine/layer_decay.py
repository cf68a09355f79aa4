"""Parameter groups as the official optimizers have them (unilm:beit/optim_factory.py, beit3/optim_factory.py)."""

from collections import defaultdict

from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from mmbeit.registry import OPTIM_WRAPPER_CONSTRUCTORS

PARAMWISE = ('layer_decay_rate', 'no_decay', 'head_lr_mult')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor:
    """One parameter group for each depth and weight decay, for pretraining, fine-tuning and segmentation.

    A parameter at depth j of L + 2 (see `get_layer_depth` of the backbone) learns with `lr * rate ** (L + 1 - j)`.
    One-dimensional parameters are not decayed, nor are those named in `no_decay`; mask token and position tables are.
    To scale the floor of a schedule likewise, give it `eta_min_ratio`, not `eta_min`.

    Args:
        optim_wrapper_cfg: The `optim_wrapper` of the config, with its `optimizer`.
        paramwise_cfg: `layer_decay_rate` (1.0: none) and `no_decay`, last parts of names without weight decay
            (`('cls_token', 'pos_embed')`); `head_lr_mult` (1.0), by which the learning rate of `head` is multiplied:
            BEiT-3 has 20 for VQA.

    Raises:
        ValueError: `paramwise_cfg` has a key of another name, or a decay of layers and a factor of the head.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        paramwise_cfg = dict(paramwise_cfg or {})
        unknown = set(paramwise_cfg) - set(PARAMWISE)
        if unknown:
            raise ValueError(f'unknown keys {sorted(unknown)} in paramwise_cfg: expected {PARAMWISE}')
        self.optim_wrapper_cfg = dict(optim_wrapper_cfg)
        self.optimizer_cfg = dict(self.optim_wrapper_cfg.pop('optimizer'))
        self.rate = paramwise_cfg.get('layer_decay_rate', 1.0)
        self.no_decay = tuple(paramwise_cfg.get('no_decay', ('cls_token', 'pos_embed')))
        self.head_lr_mult = paramwise_cfg.get('head_lr_mult', 1.0)
        if self.rate != 1 and self.head_lr_mult != 1:
            raise ValueError(
                f'layer_decay_rate {self.rate} and head_lr_mult {self.head_lr_mult}: expected one of them to be 1'
            )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        groups = self.groups(model.module if is_model_wrapper(model) else model)
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, 'params': groups})
        return OPTIM_WRAPPERS.build(
            {'type': 'OptimWrapper', **self.optim_wrapper_cfg}, default_args={'optimizer': optimizer}
        )

    def groups(self, model: nn.Module) -> list[dict]:
        """Plain dicts of `params`, `lr` and `weight_decay` that hold every trainable parameter once."""
        backbone = getattr(model, 'backbone', None)
        depth_of = getattr(backbone, 'get_layer_depth', None)
        if depth_of is None and self.rate != 1:
            raise ValueError(f'{type(backbone).__name__} has no get_layer_depth, which layer_decay_rate needs')
        lr, weight_decay = self.optimizer_cfg['lr'], self.optimizer_cfg.get('weight_decay', 0.0)
        members = defaultdict(list)
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            height = 0  # layers above this one
            if depth_of is not None:
                depth, num_layers = depth_of(name, 'backbone.')
                height = num_layers - 1 - depth
            mult = self.head_lr_mult if name.startswith('head.') else 1.0
            decays = parameter.ndim > 1 and not name.endswith('.bias') and name.rpartition('.')[2] not in self.no_decay
            members[height, -mult, decays].append(parameter)
        groups = [
            dict(params=members[key], lr=lr * self.rate ** key[0] * -key[1], weight_decay=weight_decay * key[2])
            for key in sorted(members, reverse=True)
        ]
        MMLogger.get_current_instance().info(
            f'{len(groups)} parameter groups, lr from {groups[0]["lr"]:.3g} to {groups[-1]["lr"]:.3g}'
        )
        return groups
