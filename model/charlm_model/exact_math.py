"""Exponential, logarithm and sums of float64 with one value each, whatever the processor.

numpy, torch and the system's mathematics library choose an implementation by processor, and these
differ in the last bit. Whatever reaches a probability, a draw or a compressed text uses these.

Legend: R rows, V numbers of a row.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from charlm_model.kernels.cpu.float64_arrays import exp_into, log_into, sum_rows_into

Floats = NDArray[np.float64]


def exp(x: Floats) -> Floats:
    """e^x within one last place; 0 below e^-708 and infinity above e^709."""
    return _mapped(exp_into, x)


def log(x: Floats) -> Floats:
    """The natural logarithm within one last place; minus infinity of 0, NaN of negative numbers."""
    return _mapped(log_into, x)


def exp_of_number(x: float) -> float:
    """`exp` of one number."""
    return float(exp(np.array([x]))[0])


def log_of_number(x: float) -> float:
    """`log` of one number."""
    return float(log(np.array([x]))[0])


def row_sums(x_RV: Floats) -> Floats:
    """The sum over the last axis, which stays with size 1."""
    rows = np.ascontiguousarray(x_RV, np.float64).reshape(-1, x_RV.shape[-1])
    sums_R = np.empty(len(rows))
    sum_rows_into(rows, sums_R)
    return sums_R.reshape(*x_RV.shape[:-1], 1)


def log_row_sums_of_exp(x_RV: Floats) -> Floats:
    """log sum e^x over the last axis, which stays with size 1. Each row has a finite number."""
    largest_R1 = x_RV.max(axis=-1, keepdims=True)
    summed: Floats = largest_R1 + log(row_sums(exp(x_RV - largest_R1)))
    return summed


def _mapped(function: Callable[[Floats, Floats], None], x: Floats) -> Floats:
    flat = np.ascontiguousarray(x, np.float64).reshape(-1)
    result = np.empty(len(flat))
    function(flat, result)
    return result.reshape(np.shape(x))
