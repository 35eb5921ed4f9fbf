"""Elementary functions of vectors, and reductions over lanes.

Source: Cephes mathematical library (Moshier), `expf`; Taylor's series for float64.
"""

import numpy as np

from charlm_model.kernels.cpu.jit import inlined
from charlm_model.kernels.cpu.simd import (
    LANES,
    add,
    divide,
    floor,
    fma,
    lane,
    larger,
    magnitude,
    multiply,
    power_of_two,
    splat,
    subtract,
    with_sign_of,
)

_F = np.float32
_LOWEST = _F(-87.0)  # below, e^x is no normal number
_LOG2_E = _F(1.44269504088896341)
_LN2_HIGH, _LN2_LOW = _F(0.693359375), _F(-2.12194440e-4)
_HALF, _ONE, _ZERO, _MINUS_ONE, _MINUS_TWO = _F(0.5), _F(1), _F(0), _F(-1), _F(-2)
_P0, _P1, _P2 = _F(1.9875691500e-4), _F(1.3981999507e-3), _F(8.3334519073e-3)
_P3, _P4, _P5 = _F(4.1665795894e-2), _F(1.6666665459e-1), _F(5.0000001201e-1)

_LOWEST_64 = -708.0
_LOG2_E_64 = 1.4426950408889634
_LN2_HIGH_64, _LN2_LOW_64 = 6.93145751953125e-1, 1.42860682030941723212e-6


@inlined
def exp(x):
    """e^x of float32 for x up to 88; e^-87 for all that is less. Within two last places."""
    x = larger(x, splat(_LOWEST))
    whole = floor(fma(x, splat(_LOG2_E), splat(_HALF)))
    rest = fma(whole, splat(-_LN2_HIGH), x)
    rest = fma(whole, splat(-_LN2_LOW), rest)
    series = fma(splat(_P0), rest, splat(_P1))
    series = fma(series, rest, splat(_P2))
    series = fma(series, rest, splat(_P3))
    series = fma(series, rest, splat(_P4))
    series = fma(series, rest, splat(_P5))
    series = fma(series, multiply(rest, rest), rest)
    return multiply(add(series, splat(_ONE)), power_of_two(whole))


@inlined
def exp_64(x):
    """e^x of float64 for x up to 708; e^-708 for all that is less."""
    x = larger(x, splat(_LOWEST_64))
    whole = floor(fma(x, splat(_LOG2_E_64), splat(0.5)))
    rest = fma(whole, splat(-_LN2_HIGH_64), x)
    rest = fma(whole, splat(-_LN2_LOW_64), rest)
    series = splat(1 / 6227020800.0)
    series = fma(series, rest, splat(1 / 479001600.0))
    series = fma(series, rest, splat(1 / 39916800.0))
    series = fma(series, rest, splat(1 / 3628800.0))
    series = fma(series, rest, splat(1 / 362880.0))
    series = fma(series, rest, splat(1 / 40320.0))
    series = fma(series, rest, splat(1 / 5040.0))
    series = fma(series, rest, splat(1 / 720.0))
    series = fma(series, rest, splat(1 / 120.0))
    series = fma(series, rest, splat(1 / 24.0))
    series = fma(series, rest, splat(1 / 6.0))
    series = fma(series, rest, splat(0.5))
    series = fma(series, multiply(rest, rest), rest)
    return multiply(add(series, splat(1.0)), power_of_two(whole))


@inlined
def sigmoid(x):
    """1 / (1 + e^-x)."""
    decay = exp(multiply(magnitude(x), splat(_MINUS_ONE)))
    of_size = divide(splat(_ONE), add(splat(_ONE), decay))  # at least a half
    centered = with_sign_of(subtract(of_size, splat(_HALF)), x)
    return add(centered, splat(_HALF))


@inlined
def tanh(x):
    """(1 - e^-2|x|) / (1 + e^-2|x|), with the sign of x."""
    decay = exp(multiply(magnitude(x), splat(_MINUS_TWO)))
    of_size = divide(subtract(splat(_ONE), decay), add(splat(_ONE), decay))
    return with_sign_of(of_size, x)


@inlined
def lane_sum(x):
    """All lanes added: the halves, then the halves of the sums, and so on."""
    a = (lane(x, 0) + lane(x, 8)) + (lane(x, 4) + lane(x, 12))
    b = (lane(x, 1) + lane(x, 9)) + (lane(x, 5) + lane(x, 13))
    c = (lane(x, 2) + lane(x, 10)) + (lane(x, 6) + lane(x, 14))
    d = (lane(x, 3) + lane(x, 11)) + (lane(x, 7) + lane(x, 15))
    return (a + c) + (b + d)


@inlined
def lane_max(x):
    """The largest lane."""
    largest = lane(x, 0)
    for index in range(1, LANES):
        largest = max(largest, lane(x, index))
    return largest


@inlined
def lane_sum_64(x):
    """All lanes added, as in `lane_sum`."""
    a, b = lane(x, 0) + lane(x, 4), lane(x, 1) + lane(x, 5)
    c, d = lane(x, 2) + lane(x, 6), lane(x, 3) + lane(x, 7)
    return (a + c) + (b + d)
