"""Transposes of small blocks of bfloat16 numbers in registers."""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from charlm_model.kernels.cpu.simd import address

BLOCK_SIZE = 16  # rows and columns of a block of numbers
PAIR_BLOCK_SIZE = 8  # rows and columns of a block of pairs: neighbors stay together


def _transposer(num: int, bits: int) -> Any:
    """A function that transposes a block of `num` rows and columns; strides are in int16.

    Each round interleaves the rows of the first half with those of the second, number by number,
    which rotates the bits of a number's index (row, column) by one. After log2(num) rounds row and
    column are exchanged.
    """
    vector, half = ir.VectorType(ir.IntType(bits), num), num // 2
    places = ir.VectorType(ir.IntType(32), num)
    alternations = [
        ir.Constant(places, [place for lane in lanes for place in (lane, lane + num)])
        for lanes in (range(half), range(half, num))
    ]

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, source_at, source_stride, target, target_at, target_stride = args
        from_pointer = address(context, builder, signature.args[0], source, source_at)
        to_pointer = address(context, builder, signature.args[3], target, target_at)

        def row_of(pointer: Any, stride: Any, row: int) -> Any:
            start = builder.gep(pointer, [builder.mul(stride, ir.Constant(stride.type, row))])
            return builder.bitcast(start, vector.as_pointer())

        rows = [builder.load(row_of(from_pointer, source_stride, row)) for row in range(num)]
        for row in rows:
            row.align = 2
        for _ in range(half.bit_length()):
            rows = [
                builder.shuffle_vector(rows[row // 2], rows[row // 2 + half], alternations[row % 2])
                for row in range(num)
            ]
        for row, turned in enumerate(rows):
            stored = builder.store(turned, row_of(to_pointer, target_stride, row))
            stored.align = 2
        return context.get_dummy_value()

    @intrinsic
    def transpose(_context, source, source_at, source_stride, target, target_at, target_stride):
        index = types.int64
        return types.void(source, index, index, target, index, index), code

    return transpose


transpose_block, transpose_pair_block = (
    _transposer(BLOCK_SIZE, 16),
    _transposer(PAIR_BLOCK_SIZE, 32),
)
