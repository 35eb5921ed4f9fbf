"""Exponential, logarithm and sums of float64 with the same bits on every processor.

numpy, torch and the system's mathematics library choose an implementation by processor, and these
differ in the last bit. So all probabilities, draws and compressed texts use these functions.

Legend: R rows, V numbers of a row.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from charlm_model.kernels.cpu.float64_arrays import exp_into, log_into, sum_rows_into

Floats = NDArray[np.float64]


def exp(x: Floats) -> Floats:
    """e^x, accurate to one unit in the last place; 0 below e^-708, infinity above e^709."""
    return _mapped(exp_into, x)


def log(x: Floats) -> Floats:
    """Natural logarithm, accurate to one unit in the last place; -inf of 0, NaN of negatives."""
    return _mapped(log_into, x)


def exp_of_number(x: float) -> float:
    """`exp` of one number."""
    return float(exp(np.array([x]))[0])


def log_of_number(x: float) -> float:
    """`log` of one number."""
    return float(log(np.array([x]))[0])


def row_sums(x_RV: Floats) -> Floats:
    """The sum over the last axis, which is kept with size 1."""
    rows = np.ascontiguousarray(x_RV, np.float64).reshape(-1, x_RV.shape[-1])
    sums_R = np.empty(len(rows))
    sum_rows_into(rows, sums_R)
    return sums_R.reshape(*x_RV.shape[:-1], 1)


def log_row_sums_of_exp(x_RV: Floats) -> Floats:
    """Log-sum-exp over the last axis, which is kept with size 1; each row needs a finite number."""
    largest_R1 = x_RV.max(axis=-1, keepdims=True)
    summed: Floats = largest_R1 + log(row_sums(exp(x_RV - largest_R1)))
    return summed


def _mapped(function: Callable[[Floats, Floats], None], x: Floats) -> Floats:
    flat = np.ascontiguousarray(x, np.float64).reshape(-1)
    result = np.empty(len(flat))
    function(flat, result)
    return result.reshape(np.shape(x))
