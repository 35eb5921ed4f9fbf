"""Splits a call among threads: by rows, or by columns too where there are few rows.

Each number is computed by the same operations in any split, so the split changes no bits.
"""

import math
import time
from collections.abc import Callable, Hashable
from typing import Any

from charlm_model.kernels.cpu.barrier_group import BarrierGroup, barrier_groups
from charlm_model.kernels.threads.row_sharding import (
    ROWS_PER_TILE,
    num_threads_for,
    pool,
    shard_rows,
)

_FIRST_INTERVAL, _LAST_INTERVAL = 8, 1024  # calls until the slower mode is tried again
_SLOW = 2  # a call this many times slower than before: try the other mode next
_SMOOTHING = 0.3  # weight of the newest measurement

(_SINGLE,) = barrier_groups(1)

Work = Callable[[slice, BarrierGroup, Any], None]
MakeWorkspace = Callable[[int, int], Any]


class CallSharder:
    """Splits the calls of one model among threads.

    Two threads that synchronize many times in a call are much faster where each has a core, and
    far slower where not. So both modes are timed, and the slower one is tried again now and then.
    """

    def __init__(self) -> None:
        self._tuners: dict[Hashable, Autotuner] = {}

    def shard(
        self,
        work: Work,
        make_workspace: MakeWorkspace,
        num_rows: int,
        operations_per_row: int,
        kind: Hashable = None,
        max_rows: int | None = None,
    ) -> None:
        """Call `work` with slices that cover all rows, in as many threads as are worth it.

        `make_workspace` takes the numbers of members and of rows; the members of a group share one
        workspace. Calls of one `kind` differ only in their number of operations. No slice has more
        than `max_rows`.
        """
        num_operations = num_rows * operations_per_row
        is_worth_two = num_threads_for(num_operations, 2) > 1
        if num_rows >= ROWS_PER_TILE or not is_worth_two:
            run_by_rows(work, make_workspace, num_rows, operations_per_row, max_rows)
            return
        tuner = self._tuners.setdefault((kind, num_rows), Autotuner())
        is_pair = tuner.uses_pair()
        started = time.perf_counter()
        if is_pair:
            run_as_pair(work, make_workspace, num_rows)
        else:
            run_by_rows(work, make_workspace, num_rows, operations_per_row)
        tuner.record(is_pair, (time.perf_counter() - started) / num_operations)


class Autotuner:
    """Chooses the faster mode, a pair of threads or not; tries the other less and less often."""

    def __init__(self) -> None:
        self._prefers_pair = True
        self._seconds = math.inf  # smoothed time of an operation in the preferred mode
        self._interval = self._calls_left = _FIRST_INTERVAL

    def uses_pair(self) -> bool:
        return self._prefers_pair != (self._calls_left <= 0)

    def record(self, is_pair: bool, seconds: float) -> None:
        self._calls_left -= 1
        if is_pair == self._prefers_pair:
            if seconds > _SLOW * self._seconds:
                self._calls_left = 0
            known = seconds if math.isinf(self._seconds) else self._seconds
            self._seconds = known + _SMOOTHING * (seconds - known)
            return
        if seconds < self._seconds:
            self._prefers_pair, self._seconds = is_pair, seconds
            self._interval = _FIRST_INTERVAL
        else:
            self._interval = min(2 * self._interval, _LAST_INTERVAL)
        self._calls_left = self._interval


def run_by_rows(
    work: Work,
    make_workspace: MakeWorkspace,
    num_rows: int,
    operations_per_row: int,
    max_rows: int | None = None,
) -> None:
    def shard(rows: slice) -> None:
        work(rows, _SINGLE, make_workspace(1, rows.stop - rows.start))

    shard_rows(shard, num_rows, operations_per_row, max_rows=max_rows)


def run_as_pair(work: Work, make_workspace: MakeWorkspace, num_rows: int) -> None:
    """Two threads on all rows, split by columns.

    No more than two: the thread of the pool then waits only for the caller, which already runs, so
    calls cannot block each other.
    """
    mine, theirs = barrier_groups(2)
    workspace, rows = make_workspace(2, num_rows), slice(0, num_rows)
    other = pool().submit(work, rows, theirs, workspace)
    try:
        work(rows, mine, workspace)
    finally:
        other.result()
