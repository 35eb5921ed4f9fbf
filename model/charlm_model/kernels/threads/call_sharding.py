"""A call shared out among threads: by rows, or where they are few by columns too.

A row's bits are its own, and so are those of each of its numbers: shares change nothing.
"""

import math
import time
from collections.abc import Callable, Hashable
from typing import Any

from charlm_model.kernels.cpu.barrier_group import Crew, crew_of
from charlm_model.kernels.threads.row_sharding import ROWS_TOGETHER, pool, share_rows, threads_worth

_FIRST_INTERVAL, _LAST_INTERVAL = 8, 1024  # calls until the other way is tried
_SLOW = 2  # times as slow as lately: the other way is tried at once
_SMOOTHING = 0.3  # weight of the newest measurement

(_ALONE,) = crew_of(1)

Work = Callable[[slice, Crew, Any], None]
MakeRoom = Callable[[int, int], Any]


class Sharing:
    """How one model's calls are shared out.

    Two threads that meet many times in a call gain much where each has a core, and lose far more
    where it has not; so both ways are measured, and the slower one is tried again now and then.
    """

    def __init__(self) -> None:
        self._paces: dict[Hashable, Pace] = {}

    def share(
        self,
        work: Work,
        make_room: MakeRoom,
        num_rows: int,
        operations_per_row: int,
        kind: Hashable = None,
        most_rows: int | None = None,
    ) -> None:
        """Call `work` with slices that cover all rows, at the same time in as many threads as pay.

        `make_room` takes the numbers of members and of rows; members of one crew share a room.
        Calls of one `kind` are alike but for the number of their operations. No slice has more
        than `most_rows`.
        """
        num_operations = num_rows * operations_per_row
        is_worth_two = threads_worth(num_operations, 2) > 1
        if num_rows >= ROWS_TOGETHER or not is_worth_two:
            by_rows(work, make_room, num_rows, operations_per_row, most_rows)
            return
        pace = self._paces.setdefault((kind, num_rows), Pace())
        is_pair = pace.wants_pair()
        started = time.perf_counter()
        if is_pair:
            as_pair(work, make_room, num_rows)
        else:
            by_rows(work, make_room, num_rows, operations_per_row)
        pace.record(is_pair, (time.perf_counter() - started) / num_operations)


class Pace:
    """Which way is faster: as a pair or not. The other one is tried ever more rarely."""

    def __init__(self) -> None:
        self._favors_pair = True
        self._seconds = math.inf  # of an operation lately, in the favored way
        self._interval = self._calls_left = _FIRST_INTERVAL

    def wants_pair(self) -> bool:
        return self._favors_pair != (self._calls_left <= 0)

    def record(self, is_pair: bool, seconds: float) -> None:
        self._calls_left -= 1
        if is_pair == self._favors_pair:
            if seconds > _SLOW * self._seconds:
                self._calls_left = 0
            known = seconds if math.isinf(self._seconds) else self._seconds
            self._seconds = known + _SMOOTHING * (seconds - known)
            return
        if seconds < self._seconds:
            self._favors_pair, self._seconds = is_pair, seconds
            self._interval = _FIRST_INTERVAL
        else:
            self._interval = min(2 * self._interval, _LAST_INTERVAL)
        self._calls_left = self._interval


def by_rows(
    work: Work,
    make_room: MakeRoom,
    num_rows: int,
    operations_per_row: int,
    most_rows: int | None = None,
) -> None:
    def share(rows: slice) -> None:
        work(rows, _ALONE, make_room(1, rows.stop - rows.start))

    share_rows(share, num_rows, operations_per_row, most=most_rows)


def as_pair(work: Work, make_room: MakeRoom, num_rows: int) -> None:
    """No more than two: whoever waits in the pool for the caller alone will not wait for long."""
    mine, theirs = crew_of(2)
    room, rows = make_room(2, num_rows), slice(0, num_rows)
    other = pool().submit(work, rows, theirs, room)
    try:
        work(rows, mine, room)
    finally:
        other.result()
