"""Registries of scope `mmbeit`, children of mmengine's.

A config that names `mmbeit.X` works from any default scope: mmengine imports this module for the prefix, and the
registry then imports the locations that hold `X`. Nothing has to be listed in `custom_imports`.
"""

from mmengine import registry as root
from mmengine.registry import Registry

from mmbeit.checkpoint.mmengine_loader import use_safe_checkpoint_loading

MODELS = Registry('model', parent=root.MODELS, scope='mmbeit', locations=['mmbeit.models'])
TRANSFORMS = Registry('transform', parent=root.TRANSFORMS, scope='mmbeit', locations=['mmbeit.datasets.transforms'])
DATA_SAMPLERS = Registry(
    'data sampler', parent=root.DATA_SAMPLERS, scope='mmbeit', locations=['mmbeit.datasets.samplers']
)
DATASETS = Registry(
    'dataset',
    parent=root.DATASETS,
    scope='mmbeit',
    locations=[f'mmbeit.datasets.{name}' for name in ('vision_language', 'lines', 'mixture', 'shards')],
)
FUNCTIONS = Registry('function', parent=root.FUNCTIONS, scope='mmbeit', locations=['mmbeit.datasets.mixture'])
HOOKS = Registry(
    'hook',
    parent=root.HOOKS,
    scope='mmbeit',
    locations=[
        f'mmbeit.engine.{name}' for name in ('hooks', 'attention', 'codebook', 'streams', 'compiling', 'late_logging')
    ],
)
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper', parent=root.OPTIM_WRAPPERS, scope='mmbeit', locations=['mmbeit.engine.optim_wrapper']
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=root.OPTIM_WRAPPER_CONSTRUCTORS,
    scope='mmbeit',
    locations=['mmbeit.engine.layer_decay'],
)
METRICS = Registry('metric', parent=root.METRICS, scope='mmbeit', locations=['mmbeit.evaluation'])

# Whoever builds a part of mmbeit may load a checkpoint next, through mmengine's loader.
use_safe_checkpoint_loading()
