"""Recipes, resolved, and what the tests of them ask for again and again."""

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from mmengine.config import Config
from torch import nn

from mmbeit.apis.complexity import Complexity, build_on_meta, complexity, image_size
from mmbeit.resources import resource_root

ROOT = resource_root()
PATHS = {path.stem: path for path in sorted((ROOT / 'configs').rglob('*.py')) if '_base_' not in path.parts}
FAMILIES = ('beit', 'beitv2', 'beit3')
EVALUATIONS = [name for name in PATHS if name.endswith(('_imagenet-a', '_imagenet-r'))]
MIXTURES = [name for name in PATHS if name.endswith('_image-text')]  # see test_mdm.py
RECIPES = [name for name, path in PATHS.items() if 'quickstart' not in path.parts]
RECIPES = [name for name in RECIPES if name not in EVALUATIONS + MIXTURES]
SEGMENTATION = [name for name in RECIPES if '_ade20k-' in name]
# Recipes of images with texts: their test is of another data set than their validation.
TASKS = 'vqav2-vgqa|vqav2|nlvr2|coco-caption|nocaps|coco-retrieval|flickr30k-retrieval|itc'
VISION_LANGUAGE = [name for name in RECIPES if re.search(f'-coslr-\\d+e_({TASKS})(-|$)', name)]
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
HALF = ([127.5] * 3, [127.5] * 3)


def recipes_of(family: str) -> list[str]:
    """Names of the recipes below `configs/FAMILY`."""
    return [name for name in RECIPES if PATHS[name].is_relative_to(ROOT / 'configs' / family)]


def classifiers_of(*families: str) -> list[str]:
    """Names of the recipes that fit a classifier on ImageNet."""
    names = [name for family in families for name in recipes_of(family)]
    return [name for name in names if PATHS[name].parent.name == 'benchmarks' and re.search(r'_in(1|21)k(-|$)', name)]


@cache
def read(name: str) -> Config:
    return Config.fromfile(PATHS[name])


@cache
def model_of(name: str) -> nn.Module:
    return build_on_meta(read(name))


@cache
def cost_of(name: str) -> Complexity:
    cfg = read(name)
    return complexity(model_of(name), size_of(cfg))


def size_of(cfg: Config) -> tuple[int, int]:
    """Height and width of the images that a model is trained on."""
    return (256, 256) if cfg.model.type == 'mmbeit.DiscreteVAE' else image_size(cfg)


def parse(name: str) -> dict:
    """What the name of a recipe says. A training has epochs or, for segmentation, iterations."""
    found = re.fullmatch(
        r'(?P<model>.+)_(?P<gpus>\d+)xb(?P<batch>\d+)(-accu(?P<accumulate>\d+))?(-linear)?(-amp)?'
        rf'(-coslr-(?P<epochs>\d+)e_(?P<images>in21k|in1k|{TASKS})(-(?P<size>\d+)px)?'
        r'|-coslr-(?P<steps>\d+)k_(?P<pairs>image-text)'
        r'|-(?P<iters>\d+)k_(?P<scenes>ade20k)-(?P<crop>\d+)x(?P=crop))',
        name.removesuffix('-fast-views'),
    )
    assert found, f'{name} does not follow the convention for names'
    numbers = {key: int(found[key] or 1) for key in ('gpus', 'batch', 'accumulate')}
    iters = found['iters'] or found['steps']
    length = {'iters': 1000 * int(iters)} if iters else {'epochs': int(found['epochs'])}
    size = int(found['size'] or found['crop'] or 224)
    return {
        'model': found['model'],
        'data': found['images'] or found['scenes'] or found['pairs'],
        'size': size,
        **numbers,
        **length,
    }


class Finetuning(NamedTuple):
    """What the official tables say of fine-tuning. `augments`: Mixup and CutMix, or None."""

    gpus: int
    batch: int
    accumulate: int
    lr: float
    warmup: int
    epochs: int
    layer_decay: float
    drop_path: float
    weight_decay: float
    augments: tuple[float, float] | None


def finetuning_of(name: str) -> Finetuning:
    cfg, optimizer = read(name), read(name).optim_wrapper.optimizer
    augments = {augment.type: augment.alpha for augment in (cfg.model.train_cfg or {}).get('augments', [])}
    return Finetuning(
        parse(name)['gpus'],
        cfg.train_dataloader.batch_size,
        cfg.optim_wrapper.get('accumulative_counts', 1),
        optimizer.lr,
        cfg.param_scheduler[0].end,
        cfg.train_cfg.max_epochs,
        cfg.optim_wrapper.paramwise_cfg.layer_decay_rate,
        cfg.model.backbone.drop_path_rate,
        optimizer.weight_decay,
        (augments['Mixup'], augments['CutMix']) if augments else None,
    )


def schedulers(cfg: Config) -> list[dict]:
    return cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]


def walk(node) -> Iterator[dict]:
    """All dicts of a tree."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from walk(child)


def statistics(cfg: Config) -> tuple[list[float], list[float]]:
    preprocessor = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
    return list(preprocessor.mean), list(preprocessor.std)
