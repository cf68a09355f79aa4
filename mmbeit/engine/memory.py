"""What the C library and the system do with the memory of a process."""

import ctypes
import mmap
import os
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4  # of malloc.h
LARGEST_IN_HEAP = 2**25  # bytes; glibc takes no more
MOST_MAPPED = 2**16  # blocks, glibc's own
RESERVED = 0.5  # of the machine's memory: addresses only, until they are written to


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for the next request, and Linux have it in huge pages, here and in forks.

    Otherwise glibc gives large blocks back to the system, and each step of training on a CPU maps gradients and
    activations anew, page by page; and in pages of 4 KiB much of the time is spent on looking up where they are, the
    more so in virtual machines. Kept in pages of 2 MiB, a step of pretraining base takes 0.8 to 0.9 of the time. Of
    tensors beyond half the machine's memory the pages are small, and those of more than 32 MiB are given back.

    Returns:
        Whether the C library is one that can be told.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
    except (AttributeError, OSError, TypeError):  # macOS, Windows
        return False
    options = ((M_MMAP_THRESHOLD, LARGEST_IN_HEAP), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 2**28))
    told = all(mallopt(option, value) == 1 for option, value in options)
    if told and addresses_are_free():
        reserve_huge_pages(libc, int(os.sysconf('SC_PHYS_PAGES') * mmap.PAGESIZE * RESERVED))
    return told


def addresses_are_free() -> bool:
    """Whether nobody counts addresses that are not written to: neither the system (which may promise no more memory
    than it has) nor a limit of the process."""
    import resource  # not on Windows

    try:
        strict = Path('/proc/sys/vm/overcommit_memory').read_text().strip() == '2'
    except OSError:
        strict = True
    return not strict and resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def reserve_huge_pages(libc: ctypes.CDLL, size: int) -> None:
    """Grow the heap by addresses whose pages are huge where Linux allows it, and free them for requests to come.

    Args:
        libc: glibc, told to give nothing back.
        size: In bytes.
    """
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.mallopt(M_MMAP_MAX, 0)  # else it would be a mapping of its own, which goes when it is freed
    block = libc.malloc(size)
    libc.mallopt(M_MMAP_MAX, MOST_MAPPED)
    if block:
        start = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
        libc.madvise(start, block + size - start, mmap.MADV_HUGEPAGE)
        libc.free(block)


def give_back_freed_memory() -> bool:
    """Have glibc give back what is free now, such as after :func:`keep_freed_memory` what another process needs.

    Returns:
        Whether the C library is one that can be told.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    trim(0)
    return True
