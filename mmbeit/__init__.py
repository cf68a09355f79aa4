"""mmbeit: BEiT, BEiT v2 and BEiT-3 for OpenMMLab."""

from mmbeit import compat
from mmbeit.version import __version__

compat.apply()

__all__ = ['__version__']
