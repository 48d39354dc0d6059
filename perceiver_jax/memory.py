"""Freed memory that the process keeps for what it allocates next.

glibc returns large freed blocks to the kernel, which clears each page when it is allocated again.
XLA's CPU programs allocate their temporaries anew in each call, and readers each image.
"""

import ctypes
import sys

# Of `mallopt`, in glibc's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
LARGEST = 2**31 - 1  # mallopt takes ints
LARGEST_BEFORE = 2**25  # what older versions of glibc accept as MMAP_THRESHOLD


def keep_freed_memory() -> None:
    """Makes glibc keep freed blocks below 2 GiB; with another C library it does nothing.

    XLA allocates in threads of its own. glibc gives new threads arenas of their own, which return
    what is larger than 64 MiB, so all share one. Threads that have one already keep it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    mallopt(ARENA_MAX, 1)
    mallopt(TRIM_THRESHOLD, LARGEST)
    if not mallopt(MMAP_THRESHOLD, LARGEST):
        mallopt(MMAP_THRESHOLD, LARGEST_BEFORE)
