"""What the C library does with memory that is freed."""

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
LARGEST_IN_HEAP = 2**25  # bytes; glibc takes no more


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for the next request, in this process and those that it forks.

    It gives large blocks back to the system instead, so that each step of training on a CPU maps gradients and
    activations anew, page by page, which takes a twentieth to a sixth of a step in bfloat16. A tensor of more than
    32 MiB is given back still.

    Returns:
        Whether the C library is one that can be told.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, Windows
        return False
    options = ((M_MMAP_THRESHOLD, LARGEST_IN_HEAP), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 2**28))
    return all(mallopt(option, value) == 1 for option, value in options)


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
