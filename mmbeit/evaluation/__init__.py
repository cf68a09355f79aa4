"""Registered metrics. Importing this package fills `mmbeit.registry.METRICS`."""

from mmbeit.evaluation.codebook import CodebookUsage
from mmbeit.evaluation.linear_probe import LinearProbeAccuracy
from mmbeit.evaluation.subset import SubsetAccuracy

__all__ = ['CodebookUsage', 'LinearProbeAccuracy', 'SubsetAccuracy']
