"""Memory that is freed and needed again."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmbeit.engine.memory import addresses_are_free, give_back_freed_memory, keep_freed_memory

DEFINITIONS = """
import re
import resource
from pathlib import Path
import torch
from mmbeit.engine.memory import give_back_freed_memory, keep_freed_memory

def resident(key):
    return 1024 * int(re.search(rf'{key}: +([0-9]+)', Path('/proc/self/smaps_rollup').read_text())[1])

def written():
    return [torch.ones(2 * 2**20) for _ in range(8)]  # 8 MiB each
"""
MEASURED = Path('/proc/self/smaps_rollup')
HUGE_PAGES = Path('/sys/kernel/mm/transparent_hugepage/enabled')
linux = pytest.mark.skipif(not MEASURED.exists(), reason='the system does not say how much memory is mapped')


def printed(script: str) -> int:
    """The number that a process prints which runs some lines."""
    run = subprocess.run([sys.executable, '-c', DEFINITIONS + script], capture_output=True, text=True, check=True)
    return int(run.stdout)


def freeing(before: str = '', after: str = '') -> str:
    """Lines that print how much less is mapped after 64 MiB were freed."""
    return f"""
{before}
tensors = written()
mapped = resident('Rss')
del tensors
{after}
print(mapped - resident('Rss'))
"""


@linux
def test_freed_memory_is_kept():
    assert printed(freeing()) > 2**25
    assert printed(freeing('assert keep_freed_memory()')) < 2**22


@linux
def test_kept_memory_is_given_back_when_it_is_asked_for():
    assert printed(freeing('assert keep_freed_memory()', 'assert give_back_freed_memory()')) > 2**25


@linux
@pytest.mark.skipif(not HUGE_PAGES.exists() or '[never]' in HUGE_PAGES.read_text(), reason='there are no huge pages')
@pytest.mark.skipif(sys.platform == 'win32' or not addresses_are_free(), reason='nothing is reserved here')
def test_kept_memory_is_of_huge_pages():
    script = "keep_freed_memory()\ntensors = written()\nprint(resident('AnonHugePages'))"
    assert printed(script) > 2**25
    again = 'keep_freed_memory()\ndel tensors\ngive_back_freed_memory()\n'
    assert printed(f'tensors = written()\n{again}{script}') > 2**25


@linux
def test_a_limited_process_reserves_nothing():
    script = """
resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))
before = int(Path('/proc/self/statm').read_text().split()[0])
assert keep_freed_memory()
print(int(Path('/proc/self/statm').read_text().split()[0]) - before)
"""
    assert printed(script) < 2**10  # pages
    assert printed(freeing('resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))\nkeep_freed_memory()')) < 2**22


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr('mmbeit.engine.memory.ctypes.CDLL', lambda name: object())
    assert not keep_freed_memory() and not give_back_freed_memory()
