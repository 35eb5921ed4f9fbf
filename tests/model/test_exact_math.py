"""Our exponential, logarithm, sine and cosine beside mpmath's, and their special values."""

import math

import mpmath
import numpy as np
import pytest

from charlm_model import exact_math
from charlm_model.kernels.cpu.elementary import cos_sin_64, in_quadrant
from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.simd import lane, splat

NUM = 4000
GENERATOR = np.random.default_rng(5)


@compiled
def cosine_and_sine(x: float) -> tuple[float, float]:
    turns, cosine, sine = cos_sin_64(splat(x))
    return in_quadrant(lane(turns, 0), lane(cosine, 0), lane(sine, 0))


def last_places(found: float, exact: mpmath.mpf) -> float:
    """The distance of a result from the exact one, in units of its last place."""
    return float(abs(mpmath.mpf(float(found)) - exact) / mpmath.mpf(math.ulp(float(exact))))


@pytest.mark.parametrize("spread", [1.0, 30.0, 700.0])
def test_exp_is_within_one_last_place(spread: float) -> None:
    x_N = GENERATOR.uniform(-spread, min(spread, 700.0), NUM)

    with mpmath.workprec(120):
        errors = [
            last_places(y, mpmath.exp(x)) for x, y in zip(x_N, exact_math.exp(x_N), strict=True)
        ]

    assert max(errors) < 1


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0, 700.0])
def test_log_is_within_one_last_place(spread: float) -> None:
    x_N = np.exp(GENERATOR.uniform(-spread, spread, NUM))

    with mpmath.workprec(120):
        errors = [
            last_places(y, mpmath.log(x)) for x, y in zip(x_N, exact_math.log(x_N), strict=True)
        ]

    assert max(errors) < 1


@pytest.mark.parametrize("most", [1.0, 100.0, 1e5, 2.0**30])
def test_cosine_and_sine_are_within_two_last_places_of_1(most: float) -> None:
    for x in GENERATOR.uniform(0, most, NUM):
        cosine, sine = cosine_and_sine(x)

        with mpmath.workprec(120):
            assert abs(cosine - mpmath.cos(x)) < 2**-52
            assert abs(sine - mpmath.sin(x)) < 2**-52


def test_special_values() -> None:
    inf, nan = math.inf, math.nan

    exps = exact_math.exp(np.array([0.0, -inf, -709.0, inf, 710.0, nan]))
    logs = exact_math.log(np.array([1.0, 0.0, 5e-324, inf, -1.0, nan]))

    np.testing.assert_array_equal(exps, [1, 0, 0, inf, inf, nan])
    np.testing.assert_array_equal(logs[[0, 1, 3, 4, 5]], [0, -inf, inf, nan, nan])
    assert logs[2] == pytest.approx(math.log(5e-324), rel=1e-15)


def test_a_result_does_not_depend_on_the_lane() -> None:
    x_N = GENERATOR.uniform(0.1, 30, 37)

    for function in (exact_math.exp, exact_math.log):
        alone = [float(function(np.array([x]))[0]) for x in x_N]
        assert function(x_N).tolist() == alone
        assert function(x_N[:36].reshape(3, 4, 3)).reshape(-1).tolist() == alone[:36]
    assert exact_math.log_of_number(float(x_N[3])) == exact_math.log(x_N)[3]


def test_row_sums_are_those_of_exact_arithmetic() -> None:
    x_RV = GENERATOR.normal(size=(5, 3, 77))

    sums = exact_math.row_sums(x_RV)

    assert sums.shape == (5, 3, 1)
    np.testing.assert_allclose(
        sums, np.apply_along_axis(math.fsum, -1, x_RV)[..., None], atol=1e-13
    )


def test_log_row_sums_of_exp_survive_minus_infinity() -> None:
    x_RV = np.array([[-math.inf, 0.0, -1000.0], [-math.inf, -math.inf, -5.0]])

    assert exact_math.log_row_sums_of_exp(x_RV).tolist() == [[0.0], [-5.0]]
