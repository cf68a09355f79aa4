"""What `metafile.yml` says of the models of mmbeit."""

from functools import cache
from typing import Any

import mmengine
from mmengine.config import Config

from mmbeit.resources import resource_root


@cache
def models() -> dict[str, dict]:
    """The entries of `metafile.yml` by name, as they are written there. Not to be changed."""
    return {model['Name']: model for model in mmengine.load(resource_root() / 'metafile.yml')['Models']}


def mirrors_of(url: str) -> tuple[str, ...]:
    """Where else the weights are that an entry has at `url`, in the order to try."""
    return next((tuple(m.get('Mirrors', ())) for m in models().values() if m.get('Weights') == url), ())


def apply_data(cfg: Config, entry: dict) -> None:
    """Let the model of a config scale pixels as the weights of an entry of `metafile.yml` expect it."""
    statistics = dict(mean=entry['Data']['Mean'], std=entry['Data']['Std'])
    holder = cfg if cfg.model.get('data_preprocessor') is None else cfg.model
    holder.data_preprocessor.update(statistics)


def join_hub(hub: type) -> None:
    """Let mmpretrain's hub of models know the names of mmbeit, and prefer them to its own of the same name.

    Args:
        hub: `mmpretrain.apis.model.ModelHub`. It reads its own index at the first question, and this one after it.
    """
    register_others, get_any = hub._register_mmpretrain_models, hub.get

    def register(cls: type) -> None:
        register_others()
        if getattr(cls, '_knows_mmbeit', False):
            return
        from modelindex.load_model_index import load

        root = resource_root()
        loaded = load(str(root / 'model-index.yml'))
        loaded.build_models_with_collections()
        for entry in loaded.models:
            entry.config = str(root / entry.config)
            cls._models_dict[entry.name.lower()] = entry
        cls._knows_mmbeit = True

    def get(model_name: str) -> Any:
        found = get_any(model_name)
        entry = models().get(model_name.lower())
        if entry is not None:
            apply_data(found.config, entry)
        return found

    hub._register_mmpretrain_models = classmethod(register)
    hub.get = staticmethod(get)
