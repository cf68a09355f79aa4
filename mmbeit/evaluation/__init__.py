"""Registered metrics. Importing this package fills `mmbeit.registry.METRICS`."""

from mmbeit.evaluation.codebook import CodebookUsage

__all__ = ['CodebookUsage']
