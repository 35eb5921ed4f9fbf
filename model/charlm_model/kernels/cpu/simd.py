"""SIMD vectors as numba values, which kernels add, multiply and keep in registers.

`Floats` holds 16 float32, `Doubles` 8 float64: 512 bits, which processors with narrower registers
process in parts. Only the folds, `lane_sum` and `lane_max` combine lanes, in a fixed order.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic, models, register_model

LANES = 16
DOUBLE_LANES = 8
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)


class Vector(types.Type):
    """The numba type of a vector of numbers."""

    def __init__(self, name: str, scalar: Any, lanes: int) -> None:
        super().__init__(name=name)
        self.scalar, self.lanes = scalar, lanes


Floats = Vector("Floats", types.float32, LANES)
Doubles = Vector("Doubles", types.float64, DOUBLE_LANES)
_ELEMENTS = {Floats: ir.FloatType(), Doubles: ir.DoubleType()}
_OF_SCALAR = {types.float32: Floats, types.float64: Doubles}


def machine_type(vector: Vector) -> ir.VectorType:
    return ir.VectorType(_ELEMENTS[vector], vector.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, data_models: Any, vector: Vector) -> None:
        super().__init__(data_models, vector, machine_type(vector))


def _suffix(vector: Vector) -> str:
    return f"v{vector.lanes}{'f32' if vector is Floats else 'f64'}"


def call(builder: Any, vector: Vector, name: str, *args: Any) -> Any:
    """Call an LLVM intrinsic, such as `llvm.fma`."""
    machine = machine_type(vector)
    signature = ir.FunctionType(machine, [machine] * len(args))
    function = get_or_insert_function(builder.module, signature, f"{name}.{_suffix(vector)}")
    return builder.call(function, args)


def address(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """The address of an element of a contiguous array of one dimension."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [at])


def load_at(builder: Any, vector: Vector, pointer: Any) -> Any:
    value = builder.load(builder.bitcast(pointer, machine_type(vector).as_pointer()))
    value.align = vector.scalar.bitwidth // 8
    return value


def store_at(builder: Any, vector: Vector, pointer: Any, value: Any) -> None:
    stored = builder.store(value, builder.bitcast(pointer, machine_type(vector).as_pointer()))
    stored.align = vector.scalar.bitwidth // 8


def splat_of(builder: Any, vector: Vector, scalar: Any) -> Any:
    """The scalar in every lane."""
    nothing = ir.Constant(machine_type(vector), ir.Undefined)
    first = builder.insert_element(nothing, scalar, ir.Constant(_INT32, 0))
    lanes = ir.Constant(ir.VectorType(_INT32, vector.lanes), [0] * vector.lanes)
    return builder.shuffle_vector(first, nothing, lanes)


def splat_index(builder: Any, index: Any) -> Any:
    """The index, as int32, in every lane of `Floats`."""
    wide = ir.VectorType(_INT32, LANES)
    nothing, zeros = ir.Constant(wide, ir.Undefined), ir.Constant(wide, [0] * LANES)
    first = builder.insert_element(nothing, builder.trunc(index, _INT32), ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, nothing, zeros)


@intrinsic
def load(_context: Any, array: Any, at: Any) -> Any:
    """Load a vector from a contiguous array of one dimension, from an index on."""
    vector = _OF_SCALAR[array.dtype]

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return load_at(builder, vector, address(context, builder, signature.args[0], *args))

    return vector(array, types.int64), code


@intrinsic
def load_bfloat16(_context: Any, array: Any, at: Any) -> Any:
    """Load a vector of bfloat16, stored as int16, as float32, of which it is the upper half."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = address(context, builder, signature.args[0], *args)
        halves = ir.VectorType(ir.IntType(16), LANES)
        bits = builder.load(builder.bitcast(pointer, halves.as_pointer()))
        bits.align = 2
        wide = ir.VectorType(_INT32, LANES)
        upper = builder.shl(builder.zext(bits, wide), ir.Constant(wide, [16] * LANES))
        return builder.bitcast(upper, machine_type(Floats))

    return Floats(array, types.int64), code


def _half_of_pairs(as_bits: Callable[[Any, Any, Any], Any]) -> Any:
    """Loads every second one of 32 bfloat16 numbers as float32, without a shuffle."""
    wide = ir.VectorType(_INT32, LANES)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = address(context, builder, signature.args[0], *args)
        pairs = builder.load(builder.bitcast(pointer, wide.as_pointer()))
        pairs.align = 2
        return builder.bitcast(as_bits(builder, pairs, wide), machine_type(Floats))

    @intrinsic
    def load_of_pairs(_context: Any, array: Any, at: Any) -> Any:
        return Floats(array, types.int64), code

    return load_of_pairs


load_evens = _half_of_pairs(
    lambda builder, pairs, wide: builder.shl(pairs, ir.Constant(wide, [16] * LANES))
)
load_odds = _half_of_pairs(
    lambda builder, pairs, wide: builder.and_(pairs, ir.Constant(wide, [0xFFFF0000] * LANES))
)


@intrinsic
def keep_lanes(_context: Any, vector: Any, at: Any, first: Any, last: Any) -> Any:
    """Keep lanes `first` to `last`, counted from `at` in the first lane; zero the others."""

    def code(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        value, start, *bounds = args
        lowest, highest = (splat_index(builder, builder.sub(bound, start)) for bound in bounds)
        lanes = ir.Constant(ir.VectorType(_INT32, LANES), list(range(LANES)))
        is_inside = builder.and_(
            builder.icmp_signed(">=", lanes, lowest), builder.icmp_signed("<=", lanes, highest)
        )
        nothing = ir.Constant(machine_type(Floats), [0.0] * LANES)
        return builder.select(is_inside, value, nothing)

    return Floats(vector, types.int64, types.int64, types.int64), code


@intrinsic
def prefetch(_context: Any, array: Any, at: Any) -> Any:
    """Prefetch the cache line at an index; changes no result."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        pointer = builder.bitcast(address(context, builder, signature.args[0], *args), byte)
        kinds = [ir.Constant(_INT32, kind) for kind in (0, 3, 1)]  # read, keep close, data
        hint = ir.FunctionType(ir.VoidType(), [byte, _INT32, _INT32, _INT32])
        function = get_or_insert_function(builder.module, hint, "llvm.prefetch.p0i8")
        builder.call(function, [pointer, *kinds])
        return context.get_dummy_value()

    return types.void(array, types.int64), code


@intrinsic
def to_bfloat16(_context: Any, scalar: Any) -> Any:
    """Round to the nearest bfloat16, ties to even, as int16."""

    def code(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _INT32)
        is_odd = builder.and_(builder.lshr(bits, ir.Constant(_INT32, 16)), ir.Constant(_INT32, 1))
        rounded = builder.add(bits, builder.add(is_odd, ir.Constant(_INT32, 0x7FFF)))
        return builder.trunc(builder.lshr(rounded, ir.Constant(_INT32, 16)), ir.IntType(16))

    return types.int16(types.float32), code


@intrinsic
def store(_context: Any, array: Any, at: Any, vector: Any) -> Any:
    """Store a vector from an index on."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values, index, value = args
        pointer = address(context, builder, signature.args[0], values, index)
        store_at(builder, vector, pointer, value)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), code


@intrinsic
def splat(_context: Any, scalar: Any) -> Any:
    """The number in every lane."""
    vector = _OF_SCALAR[scalar]

    def code(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return splat_of(builder, vector, args[0])

    return vector(scalar), code


@intrinsic
def lane(_context: Any, vector: Any, index: Any) -> Any:
    """One of the numbers."""

    def code(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.extract_element(args[0], builder.trunc(args[1], _INT32))

    return vector.scalar(vector, types.int64), code


def _elementwise(num: int, compute: Callable[..., Any]) -> Any:
    """An operation on `num` vectors, lane by lane: `compute(builder, vector, *values)`."""

    def make(vector: Any) -> Any:
        def code(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return compute(builder, vector, *args)

        return vector(*[vector] * num), code

    if num == 1:
        return intrinsic(lambda _context, a: make(a))
    if num == 2:
        return intrinsic(lambda _context, a, b: make(a))
    return intrinsic(lambda _context, a, b, c: make(a))


add = _elementwise(2, lambda builder, _, a, b: builder.fadd(a, b))
subtract = _elementwise(2, lambda builder, _, a, b: builder.fsub(a, b))
multiply = _elementwise(2, lambda builder, _, a, b: builder.fmul(a, b))
divide = _elementwise(2, lambda builder, _, a, b: builder.fdiv(a, b))
fma = _elementwise(3, lambda builder, vector, *args: call(builder, vector, "llvm.fma", *args))
floor = _elementwise(1, lambda builder, vector, a: call(builder, vector, "llvm.floor", a))
absolute = _elementwise(1, lambda builder, vector, a: call(builder, vector, "llvm.fabs", a))


def _maximum(builder: Any, _vector: Vector, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _copysign(builder: Any, vector: Vector, size: Any, sign: Any) -> Any:
    return call(builder, vector, "llvm.copysign", size, sign)


def _power_of_two(builder: Any, vector: Vector, exponent: Any) -> Any:
    """2^n for integers n in the range of normal numbers, built from the exponent's bits."""
    is_float = vector is Floats
    integer, bias, shift = (_INT32, 127, 23) if is_float else (_INT64, 1023, 52)
    integers = ir.VectorType(integer, vector.lanes)
    biased = builder.add(
        builder.fptosi(exponent, integers), ir.Constant(integers, [bias] * vector.lanes)
    )
    bits = builder.shl(biased, ir.Constant(integers, [shift] * vector.lanes))
    return builder.bitcast(bits, machine_type(vector))


_ROOT_HALF_BITS = 0x3FE6A09E667F3BCD  # of sqrt(1/2) in float64
_EXPONENT_BITS = 0xFFF << 52


def _exponent_bits(builder: Any, value: Any) -> tuple[Any, Any, Any]:
    """A float64 vector's bits, what they exceed those of sqrt(1/2) by, and their type."""
    integers = ir.VectorType(_INT64, DOUBLE_LANES)
    bits = builder.bitcast(value, integers)
    return bits, builder.sub(bits, _same(integers, _ROOT_HALF_BITS)), integers


def _same(integers: Any, value: int) -> Any:
    return ir.Constant(integers, [value] * integers.count)


def _exponent(builder: Any, vector: Vector, value: Any) -> Any:
    """n of x = 2^n * m with m in [sqrt(1/2), sqrt(2)), for positive normal x."""
    _, above, integers = _exponent_bits(builder, value)
    return builder.sitofp(builder.ashr(above, _same(integers, 52)), machine_type(vector))


def _significand(builder: Any, vector: Vector, value: Any) -> Any:
    """m of x = 2^n * m with m in [sqrt(1/2), sqrt(2)), for positive normal x."""
    bits, above, integers = _exponent_bits(builder, value)
    powers = builder.and_(above, _same(integers, _EXPONENT_BITS))
    return builder.bitcast(builder.sub(bits, powers), machine_type(vector))


exponent = _elementwise(1, _exponent)
significand = _elementwise(1, _significand)
maximum = _elementwise(2, _maximum)
copysign = _elementwise(2, _copysign)
power_of_two = _elementwise(1, _power_of_two)


def _shuffled(builder: Any, given: Sequence[Any], places: Sequence[int]) -> Any:
    """Lanes of one or two vectors in the given order; the second vector's count from LANES on."""
    order = ir.Constant(ir.VectorType(_INT32, LANES), list(places))
    return builder.shuffle_vector(given[0], given[-1], order)


def _lanes_of(num: int, places: Sequence[int]) -> Any:
    """An operation that reorders the lanes of one or two vectors."""
    return _elementwise(num, lambda builder, _, *given: _shuffled(builder, given, places))


def _folded(places: Sequence[int], distance: int) -> Any:
    """An operation that adds lanes of two vectors to the lanes `distance` after them."""

    def compute(builder: Any, _vector: Vector, a: Any, b: Any) -> Any:
        others = [place + distance for place in places]
        return builder.fadd(*(_shuffled(builder, (a, b), each) for each in (places, others)))

    return _elementwise(2, compute)


def _fold(size: int) -> Any:
    """Adds the two halves of every group of `size` lanes, in one vector and then in another."""
    lower = [place for place in range(2 * LANES) if place % size < size // 2]
    return _folded(lower, size // 2)


_HALF = LANES // 2
fold_8, fold_4, fold_2 = _fold(8), _fold(4), _fold(2)
# Adds the halves of each of two vectors; sums of the first and the second alternate.
fold_interleaved = _folded([lane for i in range(_HALF) for lane in (i, LANES + i)], _HALF)
combine_halves = _lanes_of(2, [*range(_HALF), *range(LANES + _HALF, 2 * LANES)])
repeat_evens, repeat_odds = (_lanes_of(1, 2 * [*range(first, LANES, 2)]) for first in (0, 1))
