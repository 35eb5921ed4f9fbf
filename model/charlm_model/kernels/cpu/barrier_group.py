"""Threads that compute one call together: each takes some columns; barriers keep them in step.

An output has the same bits in whichever thread it is computed, so the group's size changes none.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from numpy.typing import NDArray

from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.matmul import add_product
from charlm_model.kernels.cpu.matmul_tile import PANEL_WIDTH
from charlm_model.kernels.cpu.simd import LANES, address, load, store

# Indices of two counters, each in a cache line of its own.
_ARRIVED, _PHASE = 8, 16
_NUM_COUNTERS = 24
_ZERO = np.float32(0)
_SPINS_BEFORE_YIELD = 20_000  # about ten microseconds


class BarrierGroup(NamedTuple):
    """One thread's view of the group of threads that compute a call together."""

    member: int
    num_members: int
    counters: NDArray[np.int64]


def barrier_groups(num_members: int) -> list[BarrierGroup]:
    """One view for each member."""
    counters = np.zeros(_NUM_COUNTERS, np.int64)
    return [BarrierGroup(member, num_members, counters) for member in range(num_members)]


@intrinsic
def _fetch_add_one(_context: Any, array: Any, at: Any) -> Any:
    """Atomic increment; returns the value before it."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[0], *args)
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "acq_rel")

    return types.int64(array, types.int64), code


@intrinsic
def _load_acquire(_context: Any, array: Any, at: Any) -> Any:
    """Atomic load with acquire order: what was written before the matching store is visible."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[0], *args)
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(array, types.int64), code


@intrinsic
def _store_release(_context: Any, array: Any, at: Any, value: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[0], *args[:2])
        builder.store_atomic(args[2], place, "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), code


@intrinsic
def _yield_processor(_context: Any) -> Any:
    def code(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), code


@compiled
def wait_at_barrier(group):
    """Return once all members have arrived; what each wrote before is visible to all."""
    if group.num_members == 1:
        return
    counters = group.counters
    phase = _load_acquire(counters, _PHASE)
    if _fetch_add_one(counters, _ARRIVED) == group.num_members - 1:
        _store_release(counters, _ARRIVED, 0)
        _store_release(counters, _PHASE, phase + 1)
        return
    num_spins = 0
    while _load_acquire(counters, _PHASE) == phase:
        num_spins += 1
        if num_spins > _SPINS_BEFORE_YIELD:
            _yield_processor()


@compiled
def shard_of(group, num):
    """This member's part of `num` things: the first, and the end."""
    first = num * group.member // group.num_members
    return first, num * (group.member + 1) // group.num_members


@compiled
def add_product_shard(
    group, x, x_at, x_stride, num_rows, depth, weights, at, width, out, out_at, out_stride
):
    """This member's columns of `add_product`."""
    first, end = shard_of(group, width // PANEL_WIDTH)
    add_product(
        x, x_at, x_stride, num_rows, depth,
        weights, at + first * PANEL_WIDTH * depth, (end - first) * PANEL_WIDTH,
        out, out_at + first * PANEL_WIDTH, out_stride,
    )  # fmt: skip


@compiled
def clear_shard(group, out, num_rows, width):
    """Zeros in this member's columns."""
    first, end = shard_of(group, width // PANEL_WIDTH)
    for row in range(num_rows):
        out[row * width + first * PANEL_WIDTH : row * width + end * PANEL_WIDTH] = _ZERO


@compiled
def fill_shard(group, weights, at, width, num_rows, out):
    """The same values in this member's columns of every row."""
    first, end = shard_of(group, width // PANEL_WIDTH)
    for row in range(num_rows):
        for n in range(first * PANEL_WIDTH, end * PANEL_WIDTH, LANES):
            store(out, row * width + n, load(weights, at + n))
