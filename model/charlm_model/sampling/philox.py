"""Counter-based random numbers: u = f(seed, output index, position), without generator state.

So a sample does not depend on the rest of the batch, the order of arrival or earlier draws, and a
stream can be continued at any position.

Source: Salmon et al. (2011), Philox4x32-10.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_NUM_ROUNDS = 10
_MULTIPLIERS_21 = np.array([[0xD2511F53], [0xCD9E8D57]], dtype=np.uint64)
_WEYL_21 = np.array([[0x9E3779B9], [0xBB67AE85]], dtype=np.uint64)
# Added to the key in each round.
_ADDENDS_R21 = np.arange(_NUM_ROUNDS, dtype=np.uint64)[:, None, None] * _WEYL_21
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)

Words = NDArray[np.uint64]  # 32-bit words, kept in 64 bits so that products do not overflow


class Counters(NamedTuple):
    """Seed, output index and position of each row's random numbers."""

    seeds_B: Words
    outputs_B: Words
    positions_B: Words  # of the next token

    def uniforms(self, offset: int) -> NDArray[np.float64]:
        """Uniforms of the tokens `offset` positions later."""
        return uniforms(self.seeds_B, self.outputs_B, self.positions_B + np.uint64(offset))

    @property
    def columns_B3(self) -> Words:
        return np.stack([self.seeds_B, self.outputs_B, self.positions_B], axis=1)


def uniforms(seeds: Words, output_indices: Words, positions: Words) -> NDArray[np.float64]:
    """One number in [0, 1) per row, from the top 53 bits of the first two words."""
    zeros = np.zeros_like(positions)
    counter_4B = np.array([positions & _LOW, positions >> _WORD, output_indices & _LOW, zeros])
    high, low, _, _ = philox4x32(counter_4B, np.array([seeds & _LOW, seeds >> _WORD]))
    bits = ((high << _WORD) | low) >> np.uint64(11)
    uniforms_B: NDArray[np.float64] = bits.astype(np.float64) * 2.0**-53
    return uniforms_B


def philox4x32(counter_4B: Words, key_2B: Words) -> tuple[Words, Words, Words, Words]:
    """Ten rounds of the bijection on every column: four words from four, with a key of two."""
    even_2B, odd_2B = counter_4B[::2], counter_4B[1::2]
    for key_of_round_2B in (key_2B + _ADDENDS_R21) & _LOW:
        product_2B = (_MULTIPLIERS_21 * even_2B)[::-1]
        even_2B, odd_2B = (product_2B >> _WORD) ^ odd_2B ^ key_of_round_2B, product_2B & _LOW
    return even_2B[0], odd_2B[0], even_2B[1], odd_2B[1]
