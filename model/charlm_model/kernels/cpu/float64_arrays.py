"""Exponentials, logarithms and sums of float64 arrays, compiled: the same bits on every processor.

Legend: N numbers; R rows, V numbers of a row.
"""

import math

import numpy as np

from charlm_model.kernels.cpu.elementary import exp_64, lane_sum_64, log_64
from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.simd import DOUBLE_LANES, add, load, splat, store

_LEAST, _MOST = -708.0, 709.0  # beyond, e^x counts as 0 and as infinity
_TINIEST = 2.0**-1022  # the smallest normal number
_SCALE, _LOG_SCALE = 2.0**54, 37.42994775023705  # 54 log(2)


@compiled
def exp_into(x_N, out_N):
    """e^x; 0 below e^-708, infinity above e^709, NaN of NaN."""
    block = np.ones(DOUBLE_LANES)
    for first in range(0, len(x_N), DOUBLE_LANES):
        num = min(DOUBLE_LANES, len(x_N) - first)
        for i in range(num):
            block[i] = min(max(x_N[first + i], _LEAST), _MOST)
        store(block, 0, exp_64(load(block, 0)))
        for i in range(num):
            x = x_N[first + i]
            if x < _LEAST:
                out_N[first + i] = 0.0
            elif x > _MOST:
                out_N[first + i] = math.inf
            else:
                out_N[first + i] = block[i] if x == x else x


@compiled
def log_into(x_N, out_N):
    """The natural logarithm: minus infinity of 0, NaN of what is negative or NaN."""
    block = np.ones(DOUBLE_LANES)
    for first in range(0, len(x_N), DOUBLE_LANES):
        num = min(DOUBLE_LANES, len(x_N) - first)
        for i in range(num):
            x = x_N[first + i]
            block[i] = x if x >= _TINIEST else x * _SCALE
        store(block, 0, log_64(load(block, 0)))
        for i in range(num):
            x = x_N[first + i]
            if x >= _TINIEST and x < math.inf:
                out_N[first + i] = block[i]
            elif x > 0 and x < math.inf:
                out_N[first + i] = block[i] - _LOG_SCALE
            elif x == 0:
                out_N[first + i] = -math.inf
            else:
                out_N[first + i] = x if x > 0 else math.nan


@compiled
def sum_rows_into(x_RV, out_R):
    """Eight partial sums of every eighth number, then `lane_sum_64`."""
    num = x_RV.shape[1]
    whole = num - num % DOUBLE_LANES
    block = np.zeros(DOUBLE_LANES)
    for row in range(len(x_RV)):
        total = splat(0.0)
        for v in range(0, whole, DOUBLE_LANES):
            total = add(total, load(x_RV[row], v))
        for i in range(num - whole):
            block[i] = x_RV[row, whole + i]
        out_R[row] = lane_sum_64(add(total, load(block, 0)))
