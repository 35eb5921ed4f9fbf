"""Exact sums of float32 numbers that arrive in parts, rounded once at the end."""

import numpy as np
from numpy.typing import NDArray

MANTISSA_BITS = 24  # of a float32
MIN_EXPONENT = -148  # of the smallest float32, in the convention of frexp
UNIT_BITS = MANTISSA_BITS - MIN_EXPONENT  # every float32 is a multiple of 2**-UNIT_BITS


class ExactSum:
    """Has the bits of `math.fsum` over all numbers, in constant memory."""

    def __init__(self) -> None:
        self._total = 0  # in units of 2**-UNIT_BITS

    def add(self, numbers: NDArray[np.float32]) -> None:
        mantissas, exponents = np.frexp(numbers.astype(np.float64))
        # Integers below 2**24: float64 adds up to 2**29 of them exactly.
        whole = np.ldexp(mantissas, MANTISSA_BITS)
        sums = np.bincount(exponents - MIN_EXPONENT, weights=whole)
        for shift in np.flatnonzero(sums):
            self._total += int(sums[shift]) << int(shift)

    @property
    def value(self) -> float:
        return self._total / (1 << UNIT_BITS)
