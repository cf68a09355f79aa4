"""What `metafile.yml` says of the models of mmbeit."""

from functools import cache

import mmengine

from mmbeit.engine.run import resource_root


@cache
def models() -> dict[str, dict]:
    """The entries of `metafile.yml` by name, as they are written there. Not to be changed."""
    return {model['Name']: model for model in mmengine.load(resource_root() / 'metafile.yml')['Models']}


def mirrors_of(url: str) -> tuple[str, ...]:
    """Where else the weights are that an entry has at `url`, in the order to try."""
    return next((tuple(m.get('Mirrors', ())) for m in models().values() if m.get('Weights') == url), ())
