"""From logits to a token: log-probs, the processed distribution, and the draw.

Every function computes each row by itself, so a row's bits do not depend on the others.

Legend: B batch, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from charlm_model.kernels.cpu.sampling import draw_rows, logprobs_of_rows
from charlm_model.sampling.params import SamplingParams
from charlm_model.sampling.processors import Floats, processed

Ints = NDArray[np.int64]


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


def sample_rows(
    logprobs_BV: Floats,
    params_B: Sequence[SamplingParams],
    recent_B: Sequence[Sequence[int]],
    uniforms_B: Floats,
) -> tuple[Ints, Floats]:
    """One token per row, and its log-prob under the distribution it was drawn from.

    `recent_B` holds each row's past token ids, prompt included, oldest first. Only the last
    `penalty_window` ids of rows with penalties are read. An `array("q")` is ten times faster than
    a list, because its elements need no conversion.
    """
    sampling_BV = logprobs_BV
    special = [row for row, params in enumerate(params_B) if not params.is_plain]
    if special:
        sampling_BV = logprobs_BV.copy()
        sampling_BV[special] = processed(
            logprobs_BV[special],
            [params_B[row] for row in special],
            [recent_B[row] for row in special],
        )
    ids_B = draw(sampling_BV, uniforms_B)
    return ids_B, sampling_BV[np.arange(len(ids_B)), ids_B]
