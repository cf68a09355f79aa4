"""Memory that is freed and needed again."""

import resource
import subprocess
import sys

import pytest

from mmbeit.engine.memory import keep_freed_memory

SCRIPT = """
import resource
import torch
from mmbeit.engine.memory import keep_freed_memory
assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2 * 2**20) for _ in range(8)]  # 8 MiB each
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(4):
    last = faults()
print(last)
"""


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='of glibc')
def test_freed_memory_is_not_mapped_anew():
    pages = 8 * 8 * 2**20 // resource.getpagesize()
    run = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True, check=True, timeout=300)
    assert int(run.stdout) < pages / 100


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr('mmbeit.engine.memory.ctypes.CDLL', lambda name: object())
    assert not keep_freed_memory()
