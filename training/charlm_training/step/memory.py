"""Keeps freed memory in the process, so that the next step can use it.

A step allocates and frees tens of megabytes. glibc returns memory at the end of its heap to the
system, which clears every page that the next step touches: 3,000 pages, and up to 10 of the 60 ms
of a step of an LSTM of 384 (docs/log/training-speed.md).
"""

import ctypes
import sys
from functools import cache

# Of malloc.h. Setting either alone would freeze the other at its start, which is far too low.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 1024**2  # that glibc takes
_KEPT_BYTES = 1024**3


@cache
def keep_memory() -> None:
    """Has an effect for the rest of the process, and only with glibc."""
    if not sys.platform.startswith("linux"):
        return
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    if change is not None:
        change(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        change(_TRIM_THRESHOLD, _KEPT_BYTES)
