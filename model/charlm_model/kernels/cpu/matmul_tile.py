"""The innermost loop of matrix products: a few rows times a few panels, sums in registers."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from charlm_model.kernels.cpu.simd import (
    LANES,
    Floats,
    address,
    call,
    load_at,
    machine_type,
    splat_of,
    store_at,
)

PANEL_VECTORS = 2
PANEL_WIDTH = PANEL_VECTORS * LANES  # outputs whose weights lie together
_INT64 = ir.IntType(64)


def tile(num_rows: int, num_panels: int) -> Any:
    """Adds rows times panels to `out`: `out = fma(x_k, w_k, out)` for every k, in ascending order.

    The function takes x, its offset and row stride; the panels, their offset and stride; the depth
    K; and `out`, its offset and row stride.
    """
    num_vectors = num_panels * PANEL_VECTORS

    def accumulate(builder: Any, rows: list[Any], panels: list[Any], sums: Any, k: Any) -> None:
        at = builder.mul(k, _constant(PANEL_WIDTH))
        weights = [
            load_at(builder, Floats, builder.gep(panel, [builder.add(at, _constant(part * LANES))]))
            for panel in panels
            for part in range(PANEL_VECTORS)
        ]
        for row, row_sums in zip(rows, sums, strict=True):
            x = splat_of(builder, Floats, builder.load(builder.gep(row, [k])))
            for weight, place in zip(weights, row_sums, strict=True):
                total = call(builder, Floats, "llvm.fma", x, weight, builder.load(place))
                builder.store(total, place)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, x_at, x_stride, w, w_at, w_stride, depth, out, out_at, out_stride = args
        of_x, of_w, of_out = signature.args[0], signature.args[3], signature.args[7]
        x, w = address(context, builder, of_x, x, x_at), address(context, builder, of_w, w, w_at)
        out = address(context, builder, of_out, out, out_at)
        outs = [
            [builder.gep(row, [_constant(part * LANES)]) for part in range(num_vectors)]
            for row in _apart(builder, out, out_stride, num_rows)
        ]
        sums = [[cgutils.alloca_once(builder, machine_type(Floats)) for _ in row] for row in outs]
        places = [pair for row in zip(outs, sums, strict=True) for pair in zip(*row, strict=True)]
        for pointer, place in places:
            builder.store(load_at(builder, Floats, pointer), place)
        rows = _apart(builder, x, x_stride, num_rows)
        panels = _apart(builder, w, w_stride, num_panels)
        with cgutils.for_range(builder, depth) as loop:
            accumulate(builder, rows, panels, sums, loop.index)
        for pointer, place in places:
            store_at(builder, Floats, pointer, builder.load(place))
        return context.get_dummy_value()

    @intrinsic
    def add_product(_context, x, x_at, x_stride, w, w_at, w_stride, depth, out, out_at, out_stride):
        index = types.int64
        return types.void(x, index, index, w, index, index, index, out, index, index), code

    return add_product


def _constant(value: int) -> Any:
    return ir.Constant(_INT64, value)


def _apart(builder: Any, pointer: Any, stride: Any, num: int) -> list[Any]:
    """Pointers `stride` apart."""
    return [builder.gep(pointer, [builder.mul(stride, _constant(number))]) for number in range(num)]
