"""Probes: what the features of a frozen backbone are worth, block by block."""

from mmbeit.probing.attentive import AttentiveProbe
from mmbeit.probing.knn import KNNProbe
from mmbeit.probing.linear import LinearProbe
from mmbeit.probing.run import Probed, probe
from mmbeit.probing.training import Training

__all__ = ['AttentiveProbe', 'KNNProbe', 'LinearProbe', 'Probed', 'Training', 'probe']
