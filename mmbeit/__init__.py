"""mmbeit: BEiT, BEiT v2 and BEiT-3 for OpenMMLab."""

from importlib import import_module
from typing import Any

from mmbeit import compat
from mmbeit.version import __version__

# What is used from Python, and where it is: imported when it is asked for, so that `import mmbeit` stays cheap.
_APIS = {
    'list_models': 'mmbeit.apis.model',
    'get_model': 'mmbeit.apis.model',
    'DataConfig': 'mmbeit.apis.data',
    'inference_model': 'mmbeit.apis.inference',
    'ImageClassificationInferencer': 'mmbeit.apis.classification',
    'SegmentationInferencer': 'mmbeit.apis.segmentation',
    'ImageCaptionInferencer': 'mmbeit.apis.captioning',
    'VisualQuestionAnsweringInferencer': 'mmbeit.apis.question_answering',
    'NLVRInferencer': 'mmbeit.apis.nlvr',
    'ImageToTextRetrievalInferencer': 'mmbeit.apis.retrieval',
    'TextToImageRetrievalInferencer': 'mmbeit.apis.retrieval',
    'ZeroShotClassificationInferencer': 'mmbeit.apis.retrieval',
    'embed_images': 'mmbeit.apis.retrieval',
    'embed_texts': 'mmbeit.apis.retrieval',
    'FeatureExtractor': 'mmbeit.apis.features',
    'MaskedImageModelingInferencer': 'mmbeit.apis.tokens',
    'probe': 'mmbeit.probing.run',
    'set_attention_kernel': 'mmbeit.layers.kernels',
    'keep_freed_memory': 'mmbeit.engine.memory',
    'TokenFolder': 'mmbeit.datasets.tokens',
}

compat.apply()

__all__ = ['__version__', *_APIS]


def __getattr__(name: str) -> Any:
    if name not in _APIS:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_APIS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_APIS})
