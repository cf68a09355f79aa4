"""Every test starts from the same seed, in the scope that recipes run in."""

import pytest
import torch
from mmengine.registry import DefaultScope

import mmbeit  # noqa: F401, prepares what others import, wherever a run of tests begins
from mmbeit.layers.kernels import set_attention_kernel


@pytest.fixture(autouse=True)
def _seed_and_scope():
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def set_kernel():
    """Sets the kernel of attention, until the end of a test."""
    yield set_attention_kernel
    set_attention_kernel('auto')
