"""Splits rows among threads. A row is computed alone, so the split changes no bits."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

# Takes one thread about as long as waking another thread.
MIN_OPERATIONS_PER_THREAD = 4_000_000
ROWS_PER_TILE = 8  # that a kernel multiplies together
SHARDS_PER_THREAD = 4  # at least, where rows are many

Work = Callable[[slice], None]


def run_in_pool(work: Work, shards: Sequence[slice], num_threads: int) -> None:
    """Call `work` with every shard, in this thread and others; an idle thread takes the next."""
    left = deque(shards)

    def take_some() -> None:
        while left:
            try:
                shard = left.popleft()
            except IndexError:  # another was faster
                return
            work(shard)

    others = [pool().submit(take_some) for _ in range(min(len(shards), num_threads) - 1)]
    try:
        take_some()
    finally:
        left.clear()  # after a failure
        for other in others:
            if not other.cancel():
                other.result()


def num_threads_for(num_operations: int, num_shards: int) -> int:
    """Threads worth their wake-up for this much work, at most one a shard; at least 1."""
    return max(
        1, min(torch.get_num_threads(), num_operations // MIN_OPERATIONS_PER_THREAD, num_shards)
    )


def small_shard_rows(num_rows: int) -> int:
    """Rows of a shard that is small enough for threads to finish at about the same time."""
    num_shards = SHARDS_PER_THREAD * torch.get_num_threads()
    return ROWS_PER_TILE * max(1, num_rows // (ROWS_PER_TILE * num_shards))


def shard_rows(
    work: Work,
    num_rows: int,
    operations_per_row: int,
    tile_rows: int = ROWS_PER_TILE,
    call: Callable[[Work, Sequence[slice], int], None] = run_in_pool,
    max_rows: int | None = None,
) -> None:
    """Call `work` with slices that cover all rows, in as many threads as are worth it.

    Slices larger than `tile_rows` are multiples of it; none has more than `max_rows` rows.
    """
    num_threads = num_threads_for(num_rows * operations_per_row, num_rows)
    per_thread = -(-num_rows // num_threads)
    if per_thread > tile_rows:
        per_thread += -per_thread % tile_rows
    size = min(per_thread, max_rows or per_thread)
    shards = [slice(at, min(at + size, num_rows)) for at in range(0, num_rows, size)]
    call(work, shards, num_threads)


@cache
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="rows")
