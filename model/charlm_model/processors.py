"""Logits processors, in the order in which they act:

bias, penalties, temperature, top-k, typical, top-p, min-p. After each filter the distribution is
normalized again, so the next one sees true probabilities.

Legend: B batch, V vocabulary; logprobs are natural logarithms, minus infinity for what is excluded.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from charlm_model.sampling_params import SamplingParams

Floats = NDArray[np.float64]
Filter = Callable[[Floats, Floats], NDArray[np.bool_]]


def processed(
    logprobs_BV: Floats, params_B: Sequence[SamplingParams], recent_B: Sequence[Sequence[int]]
) -> Floats:
    """The distribution that each row's token is drawn from, as logprobs."""
    logits_BV = logprobs_BV.copy()
    for logits_V, params, recent in zip(logits_BV, params_B, recent_B, strict=True):
        if params.logit_bias:
            logits_V[list(params.logit_bias)] += list(params.logit_bias.values())
        if params.is_penalizing:
            _penalize(logits_V, params, recent)
    result_BV = _tempered(logits_BV, np.array([params.temperature for params in params_B]))
    for name, neutral, keeps in _FILTERS:
        values_B = np.array([getattr(params, name) for params in params_B], dtype=np.float64)
        rows = np.flatnonzero(values_B != neutral)
        if len(rows):
            kept = keeps(result_BV[rows], values_B[rows, None])
            result_BV[rows] = _normalized(np.where(kept, result_BV[rows], -np.inf))
    return result_BV


def _penalize(logits_V: Floats, params: SamplingParams, recent: Sequence[int]) -> None:
    """Source: repetition, Keskar et al. (2019), on logits; presence and frequency are additive."""
    window = np.asarray(recent[len(recent) - min(len(recent), params.penalty_window) :], np.int64)
    seen, counts = np.unique(window, return_counts=True)
    logits = logits_V[seen]
    factor = params.repetition_penalty
    scaled = np.where(logits > 0, logits / factor, logits * factor)
    logits_V[seen] = scaled - params.presence_penalty - params.frequency_penalty * counts


def _tempered(logits_BV: Floats, temperature_B: Floats) -> Floats:
    """Logits over temperature; at 0 all mass on the best, of several the one with the lowest id."""
    is_greedy = temperature_B == 0
    result_BV = _normalized(logits_BV / np.where(is_greedy, 1.0, temperature_B)[:, None])
    rows = np.flatnonzero(is_greedy)
    best = logits_BV[rows].argmax(axis=-1)
    result_BV[rows] = -np.inf
    result_BV[rows, best] = 0.0
    return result_BV


def _in_top_k(logprobs_BV: Floats, k_B1: Floats) -> NDArray[np.bool_]:
    """Of equally probable tokens the one with the lower id is kept."""
    rank_BV = np.argsort(np.argsort(-logprobs_BV, axis=-1, kind="stable"), axis=-1, kind="stable")
    kept: NDArray[np.bool_] = rank_BV < k_B1
    return kept


def _in_top_p(logprobs_BV: Floats, p_B1: Floats) -> NDArray[np.bool_]:
    """Source: Holtzman et al. (2020)."""
    return _until_mass(-logprobs_BV, logprobs_BV, p_B1)


def _is_typical(logprobs_BV: Floats, p_B1: Floats) -> NDArray[np.bool_]:
    """Source: Meister et al. (2023)."""
    p_BV = np.exp(logprobs_BV)
    surprisal_BV = np.where(p_BV > 0, -logprobs_BV, 0.0)
    entropy_B1 = (p_BV * surprisal_BV).sum(axis=-1, keepdims=True)
    distance_BV = np.where(p_BV > 0, np.abs(surprisal_BV - entropy_B1), np.inf)
    return _until_mass(distance_BV, logprobs_BV, p_B1)


def _has_min_p(logprobs_BV: Floats, fraction_B1: Floats) -> NDArray[np.bool_]:
    """Source: Nguyen et al. (2024)."""
    p_BV = np.exp(logprobs_BV)
    kept: NDArray[np.bool_] = p_BV >= fraction_B1 * p_BV.max(axis=-1, keepdims=True)
    return kept


def _until_mass(key_BV: Floats, logprobs_BV: Floats, mass_B1: Floats) -> NDArray[np.bool_]:
    """In ascending order of key, the fewest tokens whose probabilities reach the mass."""
    order_BV = np.argsort(key_BV, axis=-1, kind="stable")
    sorted_p_BV = np.take_along_axis(np.exp(logprobs_BV), order_BV, axis=-1)
    mass_before_BV = sorted_p_BV.cumsum(axis=-1) - sorted_p_BV
    kept_BV = np.zeros(key_BV.shape, dtype=bool)
    np.put_along_axis(kept_BV, order_BV, mass_before_BV < mass_B1, axis=-1)
    return kept_BV


def _normalized(logits_BV: Floats) -> Floats:
    shifted_BV = logits_BV - logits_BV.max(axis=-1, keepdims=True)
    total: Floats = shifted_BV - np.log(np.exp(shifted_BV).sum(axis=-1, keepdims=True))
    return total


_FILTERS: list[tuple[str, float, Filter]] = [
    ("top_k", 0, _in_top_k),
    ("typical_p", 1, _is_typical),
    ("top_p", 1, _in_top_p),
    ("min_p", 0, _has_min_p),
]
