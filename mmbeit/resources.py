"""Where the files are that come with the package and are no Python modules of it."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def resource_root() -> Path:
    """The folder that holds `configs`, `tools` and `metafile.yml`: in a wheel `.mim`, else the root of the checkout."""
    packed = PACKAGE / '.mim'
    return packed if packed.exists() else PACKAGE.parent
