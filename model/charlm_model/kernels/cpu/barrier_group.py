"""Threads that do one call together: each computes some columns, and they meet in between.

An output has the same bits whoever computes it, so the number of members changes nothing.
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

# Two places of the board, in cache lines of their own.
_NUM_THERE, _NUM_MEETINGS = 8, 16
_BOARD_SIZE = 24
_ZERO = np.float32(0)
_PATIENCE = 20_000  # looks at the board, some ten microseconds, before others may have the core


class Crew(NamedTuple):
    """One member's view of its crew."""

    member: int
    num_members: int
    board: NDArray[np.int64]


def crew_of(num_members: int) -> list[Crew]:
    """All members' views."""
    board = np.zeros(_BOARD_SIZE, np.int64)
    return [Crew(member, num_members, board) for member in range(num_members)]


@intrinsic
def _add_one(_context: Any, array: Any, at: Any) -> Any:
    """At once for all threads; returns what was there before."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[0], *args)
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "acq_rel")

    return types.int64(array, types.int64), code


@intrinsic
def _read(_context: Any, array: Any, at: Any) -> Any:
    """What all threads wrote before they wrote this is seen too."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[0], *args)
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(array, types.int64), code


@intrinsic
def _write(_context: Any, array: Any, at: Any, value: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address(context, builder, signature.args[0], *args[:2])
        builder.store_atomic(args[2], place, "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), code


@intrinsic
def _let_others_run(_context: Any) -> Any:
    def code(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), code


@compiled
def meet(crew):
    """Return once every member is here; all see what each wrote before."""
    if crew.num_members == 1:
        return
    board = crew.board
    num_meetings = _read(board, _NUM_MEETINGS)
    if _add_one(board, _NUM_THERE) == crew.num_members - 1:
        _write(board, _NUM_THERE, 0)
        _write(board, _NUM_MEETINGS, num_meetings + 1)
        return
    num_looks = 0
    while _read(board, _NUM_MEETINGS) == num_meetings:
        num_looks += 1
        if num_looks > _PATIENCE:
            _let_others_run()


@compiled
def share_of(crew, num):
    """This member's part of so many things: the first, and where it ends."""
    first = num * crew.member // crew.num_members
    return first, num * (crew.member + 1) // crew.num_members


@compiled
def add_share(
    crew, x, x_at, x_stride, num_rows, depth, weights, at, width, out, out_at, out_stride
):
    """This member's columns of `add_product`."""
    first, end = share_of(crew, width // PANEL_WIDTH)
    add_product(
        x, x_at, x_stride, num_rows, depth,
        weights, at + first * PANEL_WIDTH * depth, (end - first) * PANEL_WIDTH,
        out, out_at + first * PANEL_WIDTH, out_stride,
    )  # fmt: skip


@compiled
def clear_share(crew, out, num_rows, width):
    """Zeros in this member's columns."""
    first, end = share_of(crew, width // PANEL_WIDTH)
    for row in range(num_rows):
        out[row * width + first * PANEL_WIDTH : row * width + end * PANEL_WIDTH] = _ZERO


@compiled
def fill_share(crew, weights, at, width, num_rows, out):
    """The same values in this member's columns of every row."""
    first, end = share_of(crew, width // PANEL_WIDTH)
    for row in range(num_rows):
        for n in range(first * PANEL_WIDTH, end * PANEL_WIDTH, LANES):
            store(out, row * width + n, load(weights, at + n))
