"""Models by name."""

import copy
import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import CheckpointLoader
from torch import nn

from mmbeit.apis import index
from mmbeit.apis.data import DataConfig
from mmbeit.apis.weights import WeightsError
from mmbeit.checkpoint.draws import SkipDraws
from mmbeit.checkpoint.weights import put
from mmbeit.engine.config import find_config, read_config
from mmbeit.engine.errors import suggest
from mmbeit.registry import use_safe_checkpoint_loading
from mmbeit.resources import resource_root


def list_models(pattern: str | None = None, task: str | None = None, exclude_patterns: Sequence[str] = ()) -> list[str]:
    """Names of the models of mmbeit, sorted.

    Args:
        pattern: What a name starts with; `*`, `?` and `[...]` are wildcards.
        task: Only models with published results in that task, such as 'Image Classification'; 'null' for those
            without results in any.
        exclude_patterns: Names that match one of these are left out.
    """
    names = sorted(index.models())
    if pattern is not None:
        names = fnmatch.filter(names, pattern.lower() + '*')
    for other in exclude_patterns:
        names = [name for name in names if not fnmatch.fnmatch(name, other.lower() + '*')]
    if task is not None:
        names = [name for name in names if task.lower() in tasks_of(name)]
    return names


def tasks_of(name: str) -> set[str]:
    """The tasks that a model has results in, in lower case; 'null' where there are none."""
    results = index.models()[name]['Results'] or []
    return {result['Task'].lower() for result in results} or {'null'}


def get_model(
    model: str | os.PathLike | Config,
    pretrained: bool | str | os.PathLike = False,
    device: str | torch.device | None = None,
    **overrides: Any,
) -> nn.Module:
    """Build a model, with or without weights, in eval mode.

    Args:
        model: A name out of :func:`list_models`, the path or the name of a config, or a config.
        pretrained: True for the published weights of that name (of a config: its `load_from`); or the path or URL of a
            checkpoint; or False for weights as they are drawn.
        device: Where to put it; the CPU by default.
        overrides: Merged into the config of the model: `backbone=dict(drop_path_rate=0.2)`.

    Returns:
        The model. `model.data_config` says what it expects of an image: for published weights, or a local file of the
        same name, what `metafile.yml` has for them, else what the config evaluates on.

    Raises:
        FileNotFoundError: There is no such model, config or checkpoint; the message names the closest ones.
        WeightsError: Nothing is published under that name, or it cannot be downloaded.
    """
    name, cfg = _read(model)
    entry = index.models().get(name)
    published = entry is not None and _is_published(entry, pretrained)
    if published:
        index.apply_data(cfg, entry)
    if overrides:
        cfg.merge_from_dict({'model': copy.deepcopy(overrides)})  # it takes `_delete_` out of them
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    if pretrained is True:
        pretrained = entry.get('Weights') if entry else cfg.get('load_from')
        if not pretrained:
            released = [other for other in list_models() if 'Weights' in index.models()[other]]
            raise WeightsError(
                f'no weights are published for {name or "this config"}: pass the path of a checkpoint'
                + suggest(name or '', released)
            )
    scope = cfg.get('default_scope') or 'mmpretrain'
    content = {}
    with DefaultScope.overwrite_default_scope(scope):
        if pretrained:
            built, content = _with_weights(cfg.model, os.fspath(pretrained))
        else:
            built = MODELS.build(cfg.model)
    built.data_config = _data_config(cfg, entry if published else None)
    built._config, built._metainfo = cfg, None
    built._dataset_meta = (content.get('meta') or {}).get('dataset_meta') or _dataset_meta(cfg, scope)
    if device is not None:
        built.to(device)
    built.eval()
    return built


def _with_weights(cfg: dict, path: str) -> tuple[nn.Module, dict]:
    """A model with the weights of a file, and all that the file holds. What it does not say of the model is drawn."""
    use_safe_checkpoint_loading()
    content = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    with SkipDraws() as draws:
        built = MODELS.build(cfg)
    loaded = put(built, content, path)
    if draws.left(built, loaded.fresh):
        built = MODELS.build(cfg)
        put(built, content, path, log=lambda line: None)  # it has been said
    return built, content


def _read(model: str | os.PathLike | Config) -> tuple[str | None, Config]:
    """The name, if it is one of `metafile.yml`, and a config that may be changed."""
    if isinstance(model, Config):
        return None, Config(model.to_dict())
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f'model is a {type(model).__name__}: expected a name, the path of a config, or a Config')
    name = os.fspath(model)
    if not Path(name).is_file() and name.lower() in index.models():
        return name.lower(), read_config(resource_root() / index.models()[name.lower()]['Config'])
    return None, read_config(find_config(name))


def config_of(model: str | os.PathLike | Config) -> Config:
    """The config of a model, as :func:`get_model` finds it."""
    return _read(model)[1]


def _is_published(entry: dict, pretrained: bool | str | os.PathLike) -> bool:
    """Whether the weights are those of the entry: by name, by URL, or as a local file of the same name."""
    urls = [entry.get('Weights', ''), *entry.get('Mirrors', ())]
    return pretrained is True or (bool(pretrained) and Path(pretrained).name in {Path(url).name for url in urls})


def _data_config(cfg: Config, entry: dict | None) -> DataConfig | None:
    if entry is not None:
        return DataConfig.from_metafile(entry['Data'])
    try:
        return DataConfig.from_config(cfg)
    except ValueError:
        return None  # whoever wants pictures gets an error that says so


def data_config_of(model: nn.Module) -> DataConfig:
    """What a model expects of an image, whether it was built here or by mmpretrain.

    Raises:
        ValueError: The model does not say.
    """
    data = getattr(model, 'data_config', None)
    if data is None:
        entry = index.models().get(getattr(getattr(model, '_metainfo', None), 'name', None))
        cfg = getattr(model, '_config', None)
        if entry is None and cfg is None:
            raise ValueError('the model does not say what images it expects: set model.data_config to a DataConfig')
        data = DataConfig.from_metafile(entry['Data']) if entry else DataConfig.from_config(cfg)
    return data


def _dataset_meta(cfg: Config, scope: str) -> dict:
    """Names of the classes, where the data set of a config knows them."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not loader:
        return {}
    with DATASETS.switch_scope_and_registry(scope) as registry:
        meta = getattr(registry.get(loader.dataset.type), 'METAINFO', None)
    return dict(loader.dataset.get('metainfo') or meta or {})
