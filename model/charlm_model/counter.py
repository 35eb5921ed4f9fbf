"""Counter-based uniforms: u = f(seed, output index, position), with no generator to carry along.

So a sample does not depend on who shares the batch, on the order of arrival or on what was drawn
before, and a stream can be continued anywhere.

Source: Salmon et al. (2011), Philox4x32-10.
"""

import numpy as np
from numpy.typing import NDArray

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)
_NUM_ROUNDS = 10

Words = NDArray[np.uint64]  # 32-bit words, kept in 64 bits so that products do not overflow


def uniforms(seeds: Words, output_indices: Words, positions: Words) -> NDArray[np.float64]:
    """One number in [0, 1) per row, from the top 53 bits of the first two words."""
    counter = (
        positions & _LOW,
        positions >> _WORD,
        output_indices & _LOW,
        np.zeros_like(positions),
    )
    high, low, _, _ = philox4x32(counter, (seeds & _LOW, seeds >> _WORD))
    bits = ((high << _WORD) | low) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def philox4x32(
    counter: tuple[Words, Words, Words, Words], key: tuple[Words, Words]
) -> tuple[Words, ...]:
    """Ten rounds of the bijection, element by element."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_NUM_ROUNDS):
        product_0, product_1 = _MULTIPLIER_0 * c0, _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (
            (product_1 >> _WORD) ^ c1 ^ k0,
            product_1 & _LOW,
            (product_0 >> _WORD) ^ c3 ^ k1,
            product_0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW
    return c0, c1, c2, c3
