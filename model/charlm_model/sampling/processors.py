"""Logits processors, in the order in which they are applied:

bias, penalties, temperature, top-k, typical, top-p, min-p. After each filter the distribution is
normalized, so that the next one sees probabilities that sum to 1.

Legend: B batch, V vocabulary; logprobs are natural logarithms, minus infinity for what is excluded.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from charlm_model import exact_math
from charlm_model.sampling.params import SamplingParams

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]
Filter = Callable[[Floats, Floats], Mask]

# Finite, so that two logits that a tiny repetition penalty makes huge remain comparable.
_LARGEST_LOGIT = 1e300


def processed(
    logprobs_BV: Floats, params_B: Sequence[SamplingParams], recent_B: Sequence[Sequence[int]]
) -> Floats:
    """The distribution that each row's token is sampled from, as logprobs."""
    result_BV = logprobs_BV.copy()
    for result_V, params in zip(result_BV, params_B, strict=True):
        if params.logit_bias:
            result_V[list(params.logit_bias)] += list(params.logit_bias.values())
    penalizing = [row for row, params in enumerate(params_B) if params.is_penalizing]
    if penalizing:
        params_R, recent_R = [params_B[r] for r in penalizing], [recent_B[r] for r in penalizing]
        result_BV[penalizing] = _penalized(result_BV[penalizing], params_R, recent_R)
    temperature_B, *values_FB = np.array(list(map(_numbers, params_B)), dtype=np.float64).T
    result_BV = _tempered(result_BV, temperature_B)
    for (_, neutral, keeps), values_B in zip(_FILTERS, values_FB, strict=True):
        rows = np.flatnonzero(values_B != neutral)
        if len(rows):
            kept = keeps(result_BV[rows], values_B[rows, None])
            result_BV[rows] = _normalized(np.where(kept, result_BV[rows], -np.inf))
    return result_BV


def _penalized(
    logits_BV: Floats, params_B: Sequence[SamplingParams], recent_B: Sequence[Sequence[int]]
) -> Floats:
    """Source: repetition, Keskar et al. (2019); presence and frequency are additive."""
    counts_BV = np.empty(logits_BV.shape)
    for counts_V, params, recent in zip(counts_BV, params_B, recent_B, strict=True):
        window = recent[max(len(recent) - params.penalty_window, 0) :]
        counts_V[:] = np.bincount(np.asarray(window, np.int64), minlength=len(counts_V))
    numbers_BN = np.array(list(map(_penalties, params_B)), dtype=np.float64)
    factor_B1, presence_B1, frequency_B1 = numbers_BN.T[:, :, None]
    with np.errstate(over="ignore"):  # a positive logit over a tiny factor
        raised_BV = np.minimum(logits_BV / factor_B1, _LARGEST_LOGIT)
    scaled_BV = np.where(logits_BV > 0, raised_BV, logits_BV * factor_B1)
    scaled_BV -= presence_B1 + frequency_B1 * counts_BV
    penalized_BV: Floats = np.where(counts_BV > 0, scaled_BV, logits_BV)
    return penalized_BV


def _tempered(logits_BV: Floats, temperature_B: Floats) -> Floats:
    """Logits over temperature; at 0 all mass on the best token, or the lowest id of several."""
    is_greedy = temperature_B == 0
    # The best is 0 before the division, so a tiny temperature sends only others to -inf.
    shifted_BV = logits_BV - logits_BV.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):
        shifted_BV /= np.where(is_greedy, 1.0, temperature_B)[:, None]
    result_BV = _normalized(shifted_BV)
    rows = np.flatnonzero(is_greedy)
    if len(rows):
        best = logits_BV[rows].argmax(axis=-1)
        result_BV[rows] = -np.inf
        result_BV[rows, best] = 0.0
    return result_BV


def _in_top_k(logprobs_BV: Floats, k_B1: Floats) -> Mask:
    """Of equally probable tokens the lower ids are kept."""
    count_B1 = np.minimum(k_B1, logprobs_BV.shape[-1]).astype(np.int64)
    return _first(-logprobs_BV, np.sort(-logprobs_BV, axis=-1), count_B1)


def _in_top_p(logprobs_BV: Floats, p_B1: Floats) -> Mask:
    """Source: Holtzman et al. (2020)."""
    sorted_BV = np.sort(-logprobs_BV, axis=-1)
    return _first(-logprobs_BV, sorted_BV, _num_reaching(exact_math.exp(-sorted_BV), p_B1))


def _is_typical(logprobs_BV: Floats, mass_B1: Floats) -> Mask:
    """Source: Meister et al. (2023)."""
    p_BV = exact_math.exp(logprobs_BV)
    surprisal_BV = np.where(p_BV > 0, -logprobs_BV, 0.0)
    entropy_B1 = exact_math.row_sums(p_BV * surprisal_BV)
    distance_BV = np.where(p_BV > 0, np.abs(surprisal_BV - entropy_B1), np.inf)
    order_BV = np.argsort(distance_BV, axis=-1, kind="stable")
    count_B1 = _num_reaching(np.take_along_axis(p_BV, order_BV, axis=-1), mass_B1)
    kept_BV = np.zeros(p_BV.shape, dtype=bool)
    np.put_along_axis(kept_BV, order_BV, np.arange(p_BV.shape[-1]) < count_B1, axis=-1)
    return kept_BV


def _has_min_p(logprobs_BV: Floats, fraction_B1: Floats) -> Mask:
    """Source: Nguyen et al. (2024)."""
    p_BV = exact_math.exp(logprobs_BV)
    kept: Mask = p_BV >= fraction_B1 * p_BV.max(axis=-1, keepdims=True)
    return kept


def _num_reaching(sorted_p_BV: Floats, mass_B1: Floats) -> Counts:
    """How many leading probabilities reach the mass; at least one."""
    cumulated_BV = sorted_p_BV.cumsum(axis=-1)
    count: Counts = 1 + (cumulated_BV[:, :-1] < mass_B1).sum(axis=-1, keepdims=True)
    return count


def _first(key_BV: Floats, sorted_BV: Floats, count_B1: Counts) -> Mask:
    """The `count` smallest keys of a row; of equal ones the lower ids.

    Sorting values is several times faster than argsort.
    """
    last_B1 = np.take_along_axis(sorted_BV, count_B1 - 1, axis=-1)
    is_below = key_BV < last_B1
    is_tied = key_BV == last_B1
    room_B1 = count_B1 - is_below.sum(axis=-1, keepdims=True)
    kept: Mask = is_below | (is_tied & (is_tied.cumsum(axis=-1) <= room_B1))
    return kept


def _normalized(logits_BV: Floats) -> Floats:
    shifted_BV: Floats = logits_BV - logits_BV.max(axis=-1, keepdims=True)
    shifted_BV -= exact_math.log_row_sums_of_exp(shifted_BV)
    return shifted_BV


_FILTERS: list[tuple[str, float, Filter]] = [
    ("top_k", 0, _in_top_k),
    ("typical_p", 1, _is_typical),
    ("top_p", 1, _in_top_p),
    ("min_p", 0, _has_min_p),
]
_numbers = attrgetter("temperature", *(name for name, _, _ in _FILTERS))
_penalties = attrgetter("repetition_penalty", "presence_penalty", "frequency_penalty")
