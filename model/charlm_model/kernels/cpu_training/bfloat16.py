"""Vectors and matrix products of bfloat16 (stored as int16), for processors with AVX512-BF16.

For training alone: a dot product adds two terms at a time, so its bits differ from the exact path.

Legend: M rows, K inputs, N outputs.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from numpy.typing import NDArray

from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.simd import (
    LANES,
    Floats,
    address,
    load_at,
    machine_type,
    splat_index,
    splat_of,
    store_at,
)

BFloat16s = NDArray[np.int16]

PANEL_VECTORS = 2
PANEL_WIDTH = PANEL_VECTORS * LANES  # outputs of a panel; weights are ordered by input pairs
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)


class _BFloat(ir.Type):
    """LLVM's bfloat type, which llvmlite lacks."""

    intrinsic_name = "bf16"

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_PAIRS = ir.VectorType(_BFloat(), 2 * LANES)
_VECTOR = ir.VectorType(_BFloat(), LANES)


@intrinsic
def store_bfloat16(_context: Any, array: Any, at: Any, vector: Any) -> Any:
    """Store a vector from an index on, rounded to the nearest bfloat16."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values, index, value = args
        pointer = address(context, builder, signature.args[0], values, index)
        rounded = builder.fptrunc(value, _VECTOR)
        stored = builder.store(rounded, builder.bitcast(pointer, _VECTOR.as_pointer()))
        stored.align = 2
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), code


@intrinsic
def store_interleaved(
    _context: Any, source: Any, first: Any, second: Any, target: Any, at: Any
) -> Any:
    """Interleave vectors from two offsets (first, second, first, second), in bfloat16.

    Those of float32 are rounded; those of bfloat16 are copied.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values, *starts, out, index = args
        narrow = ir.VectorType(ir.IntType(16), LANES)

        def halves_from(start: Any) -> Any:
            pointer = address(context, builder, signature.args[0], values, start)
            if source.dtype == types.float32:
                rounded = builder.fptrunc(load_at(builder, Floats, pointer), _VECTOR)
                return builder.bitcast(rounded, narrow)
            bfloat16s = builder.load(builder.bitcast(pointer, narrow.as_pointer()))
            bfloat16s.align = 2
            return bfloat16s

        places = [place for lane in range(LANES) for place in (lane, lane + LANES)]
        in_turns = ir.Constant(ir.VectorType(_INT32, 2 * LANES), places)
        pairs = builder.shuffle_vector(*map(halves_from, starts), in_turns)
        pointer = address(context, builder, signature.args[3], out, index)
        stored = builder.store(pairs, builder.bitcast(pointer, pairs.type.as_pointer()))
        stored.align = 2
        return context.get_dummy_value()

    return types.void(source, types.int64, types.int64, target, types.int64), code


def _mover(bits: int) -> Any:
    """A function that copies this many bits from one array of int16 to another."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, source_at, target, target_at = args
        machine = ir.IntType(bits)
        from_pointer = address(context, builder, signature.args[0], source, source_at)
        to_pointer = address(context, builder, signature.args[2], target, target_at)
        value = builder.load(builder.bitcast(from_pointer, machine.as_pointer()))
        value.align = 2
        stored = builder.store(value, builder.bitcast(to_pointer, machine.as_pointer()))
        stored.align = 2
        return context.get_dummy_value()

    @intrinsic
    def move(_context, source, source_at, target, target_at):
        return types.void(source, types.int64, target, types.int64), code

    return move


copy_one, copy_pair = _mover(16), _mover(32)


@intrinsic
def load_dropout_scale(_context: Any, array: Any, at: Any, dropped: Any, scale: Any) -> Any:
    """Dropout: `scale` where a random byte is at least `dropped`, else 0."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values, index, limit, factor = args
        narrow, wide = ir.VectorType(ir.IntType(8), LANES), ir.VectorType(_INT32, LANES)
        pointer = address(context, builder, signature.args[0], values, index)
        drawn = builder.load(builder.bitcast(pointer, narrow.as_pointer()))
        drawn.align = 1
        limits = splat_index(builder, limit)
        is_kept = builder.icmp_signed(">=", builder.zext(drawn, wide), limits)
        nothing = ir.Constant(machine_type(Floats), [0.0] * LANES)
        return builder.select(is_kept, splat_of(builder, Floats, factor), nothing)

    return Floats(array, types.int64, types.int64, types.float32), code


def _tile(num_rows: int, is_adding: bool) -> Any:
    """A function that adds rows times a panel to `out`, or overwrites it; two inputs at a time."""

    def add_pair(builder: Any, rows: list[Any], w: Any, sums: Any, k: Any) -> None:
        at = builder.mul(k, _constant(2 * PANEL_WIDTH))
        weights = []
        for part in range(PANEL_VECTORS):
            pointer = builder.gep(w, [builder.add(at, _constant(2 * part * LANES))])
            weight = builder.load(builder.bitcast(pointer, _PAIRS.as_pointer()))
            weight.align = 2
            weights.append(weight)
        signature = ir.FunctionType(machine_type(Floats), [machine_type(Floats), _PAIRS, _PAIRS])
        dot = get_or_insert_function(builder.module, signature, "llvm.x86.avx512bf16.dpbf16ps.512")
        for row, row_sums in zip(rows, sums, strict=True):
            pointer = builder.gep(row, [builder.mul(k, _constant(2))])
            pair = builder.load(builder.bitcast(pointer, ir.FloatType().as_pointer()))
            pair.align = 2
            x = builder.bitcast(splat_of(builder, Floats, pair), _PAIRS)
            for weight, place in zip(weights, row_sums, strict=True):
                builder.store(builder.call(dot, [builder.load(place), x, weight]), place)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, x_at, x_stride, w, w_at, pairs, out, out_at, out_stride = args
        of_x, of_w, of_out = signature.args[0], signature.args[3], signature.args[6]
        x, w = address(context, builder, of_x, x, x_at), address(context, builder, of_w, w, w_at)
        out = address(context, builder, of_out, out, out_at)
        outs = [
            [builder.gep(row, [_constant(part * LANES)]) for part in range(PANEL_VECTORS)]
            for row in _apart(builder, out, out_stride, num_rows)
        ]
        sums = [[cgutils.alloca_once(builder, machine_type(Floats)) for _ in row] for row in outs]
        places = [pair for row in zip(outs, sums, strict=True) for pair in zip(*row, strict=True)]
        nothing = ir.Constant(machine_type(Floats), [0.0] * LANES)
        for pointer, place in places:
            builder.store(load_at(builder, Floats, pointer) if is_adding else nothing, place)
        rows = _apart(builder, x, x_stride, num_rows)
        with cgutils.for_range(builder, pairs) as loop:
            add_pair(builder, rows, w, sums, loop.index)
        for pointer, place in places:
            store_at(builder, Floats, pointer, builder.load(place))
        return context.get_dummy_value()

    @intrinsic
    def add_panel(_context, x, x_at, x_stride, w, w_at, pairs, out, out_at, out_stride):
        index = types.int64
        return types.void(x, index, index, w, index, index, out, index, index), code

    return add_panel


def _constant(value: int) -> Any:
    return ir.Constant(_INT64, value)


def _apart(builder: Any, pointer: Any, stride: Any, num: int) -> list[Any]:
    """Pointers `stride` apart."""
    return [builder.gep(pointer, [builder.mul(stride, _constant(number))]) for number in range(num)]


_add_eight, _add_four, _add_one = (_tile(num_rows, True) for num_rows in (8, 4, 1))
_put_eight, _put_four, _put_one = (_tile(num_rows, False) for num_rows in (8, 4, 1))


@compiled
def add_panel(x, x_at, x_stride, num_rows, depth, weights, at, out, out_at, out_stride):
    """Add rows of x times one panel of weights to rows of `out`; all flat, depth even."""
    pairs = depth // 2
    row = 0
    while row < num_rows:
        left = num_rows - row
        x_from, out_from = x_at + row * x_stride, out_at + row * out_stride
        if left >= 8:
            _add_eight(x, x_from, x_stride, weights, at, pairs, out, out_from, out_stride)
            row += 8
        elif left >= 4:
            _add_four(x, x_from, x_stride, weights, at, pairs, out, out_from, out_stride)
            row += 4
        else:
            _add_one(x, x_from, x_stride, weights, at, pairs, out, out_from, out_stride)
            row += 1


@compiled
def put_panel(x, x_at, x_stride, num_rows, depth, weights, at, out, out_at, out_stride):
    """The same, overwriting `out`."""
    pairs = depth // 2
    row = 0
    while row < num_rows:
        left = num_rows - row
        x_from, out_from = x_at + row * x_stride, out_at + row * out_stride
        if left >= 8:
            _put_eight(x, x_from, x_stride, weights, at, pairs, out, out_from, out_stride)
            row += 8
        elif left >= 4:
            _put_four(x, x_from, x_stride, weights, at, pairs, out, out_from, out_stride)
            row += 4
        else:
            _put_one(x, x_from, x_stride, weights, at, pairs, out, out_from, out_stride)
            row += 1
