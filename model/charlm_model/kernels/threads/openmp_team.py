"""Shares of a call computed by the threads with which torch multiplies, between its products.

After a product torch's other threads wait for the next one awake, for milliseconds, on cores that
threads of our own would have to share with them: an LSTM of 384 trained as fast as on one core
(docs/log/training-speed.md). These threads are there already, and begin within microseconds.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

from charlm_model.kernels.threads.row_sharding import Work, in_pool

_Member = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def in_team(work: Work, shares: Sequence[slice], num_threads: int) -> None:
    """Call `work` with every share; where torch's threads cannot be had, in those of the pool."""
    openmp = _openmp()
    num_threads = min(num_threads, len(shares))
    if openmp is None or num_threads < 2:
        in_pool(work, shares, num_threads)
        return
    failures: list[BaseException] = []

    def member(_: object) -> None:
        first, size = openmp.omp_get_thread_num(), openmp.omp_get_num_threads()
        try:
            for share in shares[first::size]:
                work(share)
        except BaseException as failure:  # noqa: BLE001 - C would drop it
            failures.append(failure)

    openmp.GOMP_parallel(_Member(member), None, num_threads, 0)
    if failures:
        raise failures[0]


@cache
def _openmp() -> Any:
    """GCC's OpenMP, if that is what torch has brought along; no other, whose threads would differ.

    Source: `GOMP_parallel` is what GCC makes of `#pragma omp parallel` (manual of libgomp).
    """
    try:
        return ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except (OSError, AttributeError):  # another OpenMP, another system
        return None
