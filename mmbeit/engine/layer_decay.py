"""Parameter groups as the official optimizer has them (unilm:beit/optim_factory.py)."""

from collections import defaultdict

from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from mmbeit.registry import OPTIM_WRAPPER_CONSTRUCTORS

PARAMWISE = ('layer_decay_rate', 'no_decay')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor:
    """One parameter group for each pair of depth and weight decay, for pretraining, fine-tuning and segmentation.

    A parameter at depth j of L + 2 (see `get_layer_depth` of the backbone) learns with `lr * rate ** (L + 1 - j)`.
    One-dimensional parameters are not decayed, nor are those named in `no_decay`; mask token and position tables are.
    To scale the floor of a schedule likewise, give it `eta_min_ratio`, not `eta_min`.

    Args:
        optim_wrapper_cfg: The `optim_wrapper` of the config, with its `optimizer`.
        paramwise_cfg: `layer_decay_rate` (1.0: none) and `no_decay`, last parts of names without weight decay
            (`('cls_token', 'pos_embed')`).

    Raises:
        ValueError: `paramwise_cfg` has a key of another name.
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
            decays = parameter.ndim > 1 and not name.endswith('.bias') and name.rpartition('.')[2] not in self.no_decay
            members[height, decays].append(parameter)
        groups = [
            dict(params=members[height, decays], lr=lr * self.rate**height, weight_decay=weight_decay * decays)
            for height, decays in sorted(members, reverse=True)
        ]
        MMLogger.get_current_instance().info(
            f'{len(groups)} parameter groups, lr from {groups[0]["lr"]:.3g} to {groups[-1]["lr"]:.3g}'
        )
        return groups
