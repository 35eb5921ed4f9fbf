"""Sums that are rounded once, of numbers that come in any number of parts."""

import numpy as np
from numpy.typing import NDArray

MANTISSA_BITS = 24  # of a float32
MIN_EXPONENT = -148  # of the smallest one, as frexp counts
UNIT_BITS = MANTISSA_BITS - MIN_EXPONENT  # all are multiples of 2**-UNIT_BITS


class ExactSum:
    """Constant memory, and the very bits of `math.fsum` over all numbers at once."""

    def __init__(self) -> None:
        self._total = 0  # in units of 2**-UNIT_BITS

    def add(self, numbers: NDArray[np.float32]) -> None:
        mantissas, exponents = np.frexp(numbers.astype(np.float64))
        # Whole numbers below 2**24: floats add up to 2**29 of them exactly.
        whole = np.ldexp(mantissas, MANTISSA_BITS)
        sums = np.bincount(exponents - MIN_EXPONENT, weights=whole)
        for shift in np.flatnonzero(sums):
            self._total += int(sums[shift]) << int(shift)

    @property
    def value(self) -> float:
        return self._total / (1 << UNIT_BITS)
