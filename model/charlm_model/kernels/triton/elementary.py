"""Elementary functions with a fixed order of operations.

Multiply-adds are written as fused, so that the compiler has no choice.
"""

import triton
import triton.language as tl


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x), as in `charlm_model.kernels.cpu.elementary`."""
    of_size = 1.0 / (1.0 + tl.exp(-tl.abs(x)))  # at least a half
    return tl.where(x < 0, 1.0 - of_size, of_size)


@triton.jit
def tanh(x):
    """(1 - e^-2|x|) / (1 + e^-2|x|), with the sign of x."""
    decay = tl.exp(-2.0 * tl.abs(x))
    of_size = (1.0 - decay) / (1.0 + decay)
    return tl.where(x < 0, -of_size, of_size)


@triton.jit
def to_bfloat16(x):
    """Round to the nearest bfloat16, ties to even."""
    bits = x.to(tl.int32, bitcast=True)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)


@triton.jit
def fma_64(x, y: tl.constexpr, z):
    """x * y + z in float64 with one rounding."""
    return tl.fma(x, tl.full(x.shape, y, tl.float64), z)


@triton.jit
def exp_64(x):
    """e^x as in `charlm_model.kernels.cpu.elementary`, operation by operation: the same bits."""
    x = tl.maximum(x, -708.0)
    half = tl.full(x.shape, 0.5, tl.float64)
    whole = tl.floor(fma_64(x, 1.4426950408889634, half))
    rest = fma_64(whole, -6.93145751953125e-1, x)
    rest = fma_64(whole, -1.42860682030941723212e-6, rest)
    series = tl.full(x.shape, 1 / 6227020800.0, tl.float64)
    series = tl.fma(series, rest, tl.full(x.shape, 1 / 479001600.0, tl.float64))
    series = tl.fma(series, rest, tl.full(x.shape, 1 / 39916800.0, tl.float64))
    series = tl.fma(series, rest, tl.full(x.shape, 1 / 3628800.0, tl.float64))
    series = tl.fma(series, rest, tl.full(x.shape, 1 / 362880.0, tl.float64))
    series = tl.fma(series, rest, tl.full(x.shape, 1 / 40320.0, tl.float64))
    series = tl.fma(series, rest, tl.full(x.shape, 1 / 5040.0, tl.float64))
    series = tl.fma(series, rest, tl.full(x.shape, 1 / 720.0, tl.float64))
    series = tl.fma(series, rest, tl.full(x.shape, 1 / 120.0, tl.float64))
    series = tl.fma(series, rest, tl.full(x.shape, 1 / 24.0, tl.float64))
    series = tl.fma(series, rest, tl.full(x.shape, 1 / 6.0, tl.float64))
    series = tl.fma(series, rest, half)
    series = tl.fma(series, rest * rest, rest)
    power = ((whole.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)
    return (series + 1.0) * power
