"""Registered metrics. Importing this package fills `mmbeit.registry.METRICS`."""

from mmbeit.evaluation.captions import CaptionExactMatch, CaptionScores, ReportCaptions
from mmbeit.evaluation.codebook import CodebookUsage
from mmbeit.evaluation.linear_probe import LinearProbeAccuracy
from mmbeit.evaluation.subset import SubsetAccuracy
from mmbeit.evaluation.vqa import VQAAccuracy, VQAScore

__all__ = [
    'CaptionExactMatch',
    'CaptionScores',
    'CodebookUsage',
    'LinearProbeAccuracy',
    'ReportCaptions',
    'SubsetAccuracy',
    'VQAAccuracy',
    'VQAScore',
]
