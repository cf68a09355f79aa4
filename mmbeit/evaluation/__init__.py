"""Registered metrics. Importing this package fills `mmbeit.registry.METRICS`."""

from mmbeit.evaluation.codebook import CodebookUsage
from mmbeit.evaluation.linear_probe import LinearProbeAccuracy

__all__ = ['CodebookUsage', 'LinearProbeAccuracy']
