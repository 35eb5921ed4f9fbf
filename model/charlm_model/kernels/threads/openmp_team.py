"""Runs the shards of a call in torch's own OpenMP threads.

After a matrix product torch's threads spin for milliseconds while they wait for the next one.
Threads of our own would compete with them for the cores: an LSTM of 384 then trained no faster than
on one core (docs/log/training-speed.md). torch's threads are already awake and begin within
microseconds.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

from charlm_model.kernels.threads.row_sharding import Work, run_in_pool

_Member = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def run_in_team(work: Work, shards: Sequence[slice], num_threads: int) -> None:
    """Call `work` with every shard; in the pool's threads where torch uses another OpenMP."""
    openmp = _openmp()
    num_threads = min(num_threads, len(shards))
    if openmp is None or num_threads < 2:
        run_in_pool(work, shards, num_threads)
        return
    failures: list[BaseException] = []

    def member(_: object) -> None:
        first, size = openmp.omp_get_thread_num(), openmp.omp_get_num_threads()
        try:
            for shard in shards[first::size]:
                work(shard)
        except BaseException as failure:  # noqa: BLE001 - C would drop it
            failures.append(failure)

    openmp.GOMP_parallel(_Member(member), None, num_threads, 0)
    if failures:
        raise failures[0]


@cache
def _openmp() -> Any:
    """GCC's OpenMP if torch has loaded it; None otherwise, as its threads would not be torch's.

    Source: `GOMP_parallel` is what GCC makes of `#pragma omp parallel` (manual of libgomp).
    """
    try:
        return ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except (OSError, AttributeError):  # another OpenMP, another system
        return None
