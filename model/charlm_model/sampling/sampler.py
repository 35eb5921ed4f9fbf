"""The sampler: applies the logits processors and draws one token for each row."""

from collections.abc import Sequence

import numpy as np

from charlm_model.sampling.draw import Ints, draw
from charlm_model.sampling.params import SamplingParams
from charlm_model.sampling.processors import Floats, processed


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
