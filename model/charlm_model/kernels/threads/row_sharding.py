"""Rows shared out among threads. A row's bits are its own, so the shares change nothing."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

# What one thread does in about the time that it takes to wake another.
LEAST_OPERATIONS = 4_000_000
ROWS_TOGETHER = 8  # that a kernel multiplies at once
SHARES_PER_THREAD = 4  # at least, where rows are many

Work = Callable[[slice], None]


def in_pool(work: Work, shares: Sequence[slice], num_threads: int) -> None:
    """Call `work` with every share, in this thread and others; whoever is done takes the next."""
    left = deque(shares)

    def take_some() -> None:
        while left:
            try:
                share = left.popleft()
            except IndexError:  # another was faster
                return
            work(share)

    others = [pool().submit(take_some) for _ in range(min(len(shares), num_threads) - 1)]
    try:
        take_some()
    finally:
        left.clear()  # where it failed
        for other in others:
            if not other.cancel():
                other.result()


def threads_worth(num_operations: int, num_shares: int) -> int:
    """How many threads pay for so many operations, which so many at most can share; at least 1."""
    return max(1, min(torch.get_num_threads(), num_operations // LEAST_OPERATIONS, num_shares))


def rows_of_small_share(num_rows: int) -> int:
    """Rows of a share so small that threads hardly wait for each other, and no smaller."""
    num_shares = SHARES_PER_THREAD * torch.get_num_threads()
    return ROWS_TOGETHER * max(1, num_rows // (ROWS_TOGETHER * num_shares))


def share_rows(
    work: Work,
    num_rows: int,
    operations_per_row: int,
    together: int = ROWS_TOGETHER,
    call: Callable[[Work, Sequence[slice], int], None] = in_pool,
    most: int | None = None,
) -> None:
    """Call `work` with slices that cover all rows, at the same time in as many threads as pay.

    Slices of more than `together` rows are of multiples of so many; none has more than `most`.
    """
    num_threads = threads_worth(num_rows * operations_per_row, num_rows)
    per_thread = -(-num_rows // num_threads)
    if per_thread > together:
        per_thread += -per_thread % together
    size = min(per_thread, most or per_thread)
    shares = [slice(at, min(at + size, num_rows)) for at in range(0, num_rows, size)]
    call(work, shares, num_threads)


@cache
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="rows")
