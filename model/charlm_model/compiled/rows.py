"""Rows shared out among threads. A row's bits are its own, so the shares change nothing."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

# What one thread does in about the time that it takes to wake another.
LEAST_OPERATIONS = 4_000_000
ROWS_TOGETHER = 8  # that a kernel multiplies at once


def share_rows(
    work: Callable[[slice], None],
    num_rows: int,
    operations_per_row: int,
    together: int = ROWS_TOGETHER,
) -> None:
    """Call `work` with slices that cover all rows, at the same time in as many threads as pay.

    Slices of more than `together` rows are of multiples of so many.
    """
    worth = num_rows * operations_per_row // LEAST_OPERATIONS
    num_threads = max(1, min(torch.get_num_threads(), worth, num_rows))
    per_thread = -(-num_rows // num_threads)
    if per_thread > together:
        per_thread += -per_thread % together
    shares = [slice(at, min(at + per_thread, num_rows)) for at in range(0, num_rows, per_thread)]
    others = [pool().submit(work, share) for share in shares[1:]]
    if shares:
        work(shares[0])
    for other in others:
        other.result()


@cache
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="rows")
