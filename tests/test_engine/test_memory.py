"""Memory that is freed and needed again."""

import subprocess
import sys

import pytest

from mmbeit.engine.memory import give_back_freed_memory, keep_freed_memory

SCRIPT = """
import resource
from pathlib import Path
import torch
from mmbeit.engine.memory import keep_freed_memory
assert keep_freed_memory()
def resident():
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize()
tensors = [torch.ones(2 * 2**20) for _ in range(8)]  # 8 MiB each
before = resident()
del tensors
print(before - resident())
"""


def given_back(script: str) -> int:
    """Bytes that a process gives back to the system where it frees 64 MiB."""
    return int(subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='of glibc')
def test_freed_memory_is_kept():
    assert given_back(SCRIPT) < 2**22
    assert given_back(SCRIPT.replace('assert keep_freed_memory()\n', '')) > 2**25


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='of glibc')
def test_kept_memory_is_given_back_when_it_is_asked_for():
    script = SCRIPT.replace('import keep_freed_memory', 'import give_back_freed_memory, keep_freed_memory')
    assert given_back(script.replace('del tensors', 'del tensors\nassert give_back_freed_memory()')) > 2**25


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr('mmbeit.engine.memory.ctypes.CDLL', lambda name: object())
    assert not keep_freed_memory() and not give_back_freed_memory()
