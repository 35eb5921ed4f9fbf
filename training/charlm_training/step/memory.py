"""Memory that one step gives back is kept for the next one.

A step takes and frees tens of megabytes. glibc returns them to the system as soon as they lie at
the end of its heap, and the system clears every page again that the next step touches: 3,000 pages
and up to 10 of 60 ms a step of an LSTM of 384 (docs/log/training-speed.md).
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
    """For the rest of the process; does nothing where the C library has no such settings."""
    if not sys.platform.startswith("linux"):
        return
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    if change is not None:
        change(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        change(_TRIM_THRESHOLD, _KEPT_BYTES)
