"""Elementary functions of vectors, and reductions over lanes.

No result comes from the system's mathematics library, so none depends on the processor.

Source: Cephes mathematical library (Moshier), `expf`; Taylor's series for the exponential of
float64; fdlibm (Sun Microsystems) for logarithm, sine and cosine.
"""

import numpy as np

from charlm_model.kernels.cpu.jit import inlined
from charlm_model.kernels.cpu.simd import (
    LANES,
    absolute,
    add,
    copysign,
    divide,
    exponent,
    floor,
    fma,
    lane,
    maximum,
    multiply,
    power_of_two,
    significand,
    splat,
    subtract,
)

_F = np.float32
_LOWEST = _F(-87.0)  # below it e^x is subnormal
_LOG2_E = _F(1.44269504088896341)
_LN2_HIGH, _LN2_LOW = _F(0.693359375), _F(-2.12194440e-4)
_HALF, _ONE, _ZERO, _MINUS_ONE, _MINUS_TWO = _F(0.5), _F(1), _F(0), _F(-1), _F(-2)
_P0, _P1, _P2 = _F(1.9875691500e-4), _F(1.3981999507e-3), _F(8.3334519073e-3)
_P3, _P4, _P5 = _F(4.1665795894e-2), _F(1.6666665459e-1), _F(5.0000001201e-1)

_LOWEST_64 = -708.0
_LOG2_E_64 = 1.4426950408889634
_LN2_HIGH_64, _LN2_LOW_64 = 6.93145751953125e-1, 1.42860682030941723212e-6

# log(2) in two parts, the first of 32 bits, so that its product with an exponent is exact.
_LOG_HIGH, _LOG_LOW = 6.93147180369123816490e-1, 1.90821492927058770002e-10
_L1, _L2, _L3 = 6.666666666666735130e-1, 3.999999999940941908e-1, 2.857142874366239149e-1
_L4, _L5, _L6 = 2.222219843214978396e-1, 1.818357216161805012e-1, 1.531383769920937332e-1
_L7 = 1.479819860511658591e-1

_TWO_OVER_PI = 0.6366197723675814
# pi / 2 in three parts of 53 bits each.
_QUARTER_1, _QUARTER_2 = 1.5707963267948966, 6.123233995736766e-17
_QUARTER_3 = -1.4973849048591698e-33
_S1, _S2, _S3 = -1.66666666666666324348e-1, 8.33333333332248946124e-3, -1.98412698298579493134e-4
_S4, _S5, _S6 = 2.75573137070700676789e-6, -2.50507602534068634195e-8, 1.58969099521155010221e-10
_C1, _C2, _C3 = 4.16666666666666019037e-2, -1.38888888888741095749e-3, 2.48015872894767294178e-5
_C4, _C5, _C6 = -2.75573143513906633035e-7, 2.08757232129817482790e-9, -1.13596475577881948265e-11


@inlined
def exp(x):
    """e^x of float32 for x up to 88, e^-87 below -87; accurate to two units in the last place."""
    x = maximum(x, splat(_LOWEST))
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
    """e^x of float64 for x up to 708, and e^-708 below -708."""
    x = maximum(x, splat(_LOWEST_64))
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
def log_64(x):
    """The natural logarithm of positive normal float64. Within one last place."""
    k, f = exponent(x), subtract(significand(x), splat(1.0))
    s = divide(f, add(splat(2.0), f))
    z = multiply(s, s)
    series = fma(splat(_L7), z, splat(_L6))
    series = fma(series, z, splat(_L5))
    series = fma(series, z, splat(_L4))
    series = fma(series, z, splat(_L3))
    series = fma(series, z, splat(_L2))
    series = fma(series, z, splat(_L1))
    half_square = multiply(splat(0.5), multiply(f, f))
    rest = fma(s, fma(series, z, half_square), multiply(k, splat(_LOG_LOW)))
    return subtract(multiply(k, splat(_LOG_HIGH)), subtract(subtract(half_square, rest), f))


@inlined
def cos_sin_64(x):
    """Cosine and sine of float64 up to 2^30 radians. Within two last places of the larger."""
    turns = floor(fma(x, splat(_TWO_OVER_PI), splat(0.5)))
    r = fma(turns, splat(-_QUARTER_1), x)
    r = fma(turns, splat(-_QUARTER_2), r)
    r = fma(turns, splat(-_QUARTER_3), r)
    z = multiply(r, r)
    series = fma(splat(_S6), z, splat(_S5))
    series = fma(series, z, splat(_S4))
    series = fma(series, z, splat(_S3))
    series = fma(series, z, splat(_S2))
    series = fma(series, z, splat(_S1))
    sine = fma(multiply(series, z), r, r)
    series = fma(splat(_C6), z, splat(_C5))
    series = fma(series, z, splat(_C4))
    series = fma(series, z, splat(_C3))
    series = fma(series, z, splat(_C2))
    series = fma(series, z, splat(_C1))
    cosine = fma(multiply(series, z), z, fma(splat(-0.5), z, splat(1.0)))
    return turns, cosine, sine


@inlined
def in_quadrant(turns, cosine, sine):
    """Cosine and sine of an angle that is so many quarter turns further."""
    quadrant = int(turns) & 3
    if quadrant == 1:
        return -sine, cosine
    if quadrant == 2:
        return -cosine, -sine
    if quadrant == 3:
        return sine, -cosine
    return cosine, sine


@inlined
def sigmoid(x):
    """1 / (1 + e^-x)."""
    decay = exp(multiply(absolute(x), splat(_MINUS_ONE)))
    of_size = divide(splat(_ONE), add(splat(_ONE), decay))  # at least a half
    centered = copysign(subtract(of_size, splat(_HALF)), x)
    return add(centered, splat(_HALF))


@inlined
def tanh(x):
    """(1 - e^-2|x|) / (1 + e^-2|x|), with the sign of x."""
    decay = exp(multiply(absolute(x), splat(_MINUS_TWO)))
    of_size = divide(subtract(splat(_ONE), decay), add(splat(_ONE), decay))
    return copysign(of_size, x)


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
