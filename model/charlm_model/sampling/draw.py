"""Log-probs from logits, and the draw of a token.

Every function computes each row by itself, so a row's bits do not depend on the others.

Legend: B batch, V vocabulary.
"""

import numpy as np
from numpy.typing import NDArray

from charlm_model.kernels.cpu.sampling import draw_rows, logprobs_of_rows

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def logprobs_from(logits_BV: NDArray[np.float32]) -> Floats:
    """Log-softmax in float64, so that probabilities sum to 1 within 1e-12."""
    logprobs_BV = np.empty(logits_BV.shape)
    logprobs_of_rows(np.ascontiguousarray(logits_BV, np.float32), logprobs_BV)
    return logprobs_BV


def draw(logprobs_BV: Floats, uniforms_B: Floats) -> Ints:
    """Inverse-CDF sampling in id order: the first token whose cumulative probability exceeds u."""
    ids_B = np.empty(len(logprobs_BV), np.int64)
    draw_rows(
        np.ascontiguousarray(logprobs_BV, np.float64), np.ascontiguousarray(uniforms_B), ids_B
    )
    return ids_B
