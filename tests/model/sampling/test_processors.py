"""Filters agree with a plain sort, for ties and extreme values too."""

import math
from array import array
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from charlm_model.sampling.draw import logprobs_from
from charlm_model.sampling.params import SamplingParams
from charlm_model.sampling.philox import uniforms
from charlm_model.sampling.processors import processed
from charlm_model.sampling.sampler import sample_rows

Floats = NDArray[np.float64]

# Few different values, so that many tokens are equally probable.
TIED_LOGITS = st.lists(st.sampled_from([-2.0, 0.0, 0.5, 3.0]), min_size=2, max_size=12)
MASSES = st.sampled_from([0.03, 0.21, 0.47, 0.66, 0.89, 0.97])


def distribution(logits: list[float]) -> Floats:
    return logprobs_from(np.array([logits], np.float32))[0]


def kept(logits: list[float], params: SamplingParams) -> list[int]:
    """The ids that may be drawn."""
    result = processed(distribution(logits)[None], [params], [[]])[0]
    return np.flatnonzero(np.isfinite(result)).tolist()


def until(order: list[int], p: Floats, mass: float) -> list[int]:
    """In this order, tokens until they reach the mass."""
    taken: list[int] = []
    while len(taken) < len(p) and p[taken].sum() < mass:
        taken.append(order[len(taken)])
    return sorted(taken)


@given(logits=TIED_LOGITS, k=st.integers(1, 15))
def test_top_k_is_the_head_of_a_sort(logits: list[float], k: int) -> None:
    best_first = sorted(range(len(logits)), key=lambda i: (-logits[i], i))

    assert kept(logits, SamplingParams(top_k=k)) == sorted(best_first[:k])


@given(logits=TIED_LOGITS, mass=MASSES)
def test_top_p_takes_from_a_sort_until_the_mass(logits: list[float], mass: float) -> None:
    best_first = sorted(range(len(logits)), key=lambda i: (-logits[i], i))

    expected = until(best_first, np.exp(distribution(logits)), mass)

    assert kept(logits, SamplingParams(top_p=mass)) == expected


@given(logits=TIED_LOGITS, mass=MASSES)
def test_typical_takes_the_nearest_to_the_entropy(logits: list[float], mass: float) -> None:
    logprobs = distribution(logits)
    entropy = -(np.exp(logprobs) * logprobs).sum()
    nearest_first = sorted(range(len(logits)), key=lambda i: (abs(-logprobs[i] - entropy), i))

    expected = until(nearest_first, np.exp(logprobs), mass)

    assert kept(logits, SamplingParams(typical_p=mass)) == expected


@given(logits=TIED_LOGITS, fraction=st.sampled_from([0.01, 0.1, 0.5, 0.99]))
def test_min_p_keeps_that_fraction_of_the_best(logits: list[float], fraction: float) -> None:
    floor = max(logits) + math.log(fraction)

    expected = [i for i, logit in enumerate(logits) if logit >= floor]

    assert kept(logits, SamplingParams(min_p=fraction)) == expected


@given(logits=TIED_LOGITS)
def test_the_best_is_always_kept(logits: list[float]) -> None:
    narrowest = SamplingParams(top_k=1, top_p=1e-9, min_p=1.0)

    assert kept(logits, narrowest) == [int(np.argmax(logits))]


def test_filters_are_applied_in_the_stated_order() -> None:
    """After top-k of 2 the best has 5/8 of the mass, so a top-p of 0.6 needs no other."""
    logits = np.log([0.5, 0.3, 0.2]).tolist()

    assert kept(logits, SamplingParams(top_p=0.6)) == [0, 1]
    assert kept(logits, SamplingParams(top_k=2, top_p=0.6)) == [0]


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=5e-324),
        SamplingParams(temperature=100.0),
        SamplingParams(top_k=2**31 - 1),
        SamplingParams(top_p=5e-324),
        SamplingParams(typical_p=5e-324),
        SamplingParams(repetition_penalty=5e-324, logit_bias={0: 100.0, 1: 100.0}),
        SamplingParams(repetition_penalty=5e-324, presence_penalty=100.0, temperature=1e-300),
        SamplingParams(frequency_penalty=-100.0),
        SamplingParams(logit_bias={0: -100.0, 1: -100.0, 2: -100.0, 3: -100.0}),
    ],
    ids=str,
)
def test_extreme_parameters_leave_a_distribution(params: SamplingParams) -> None:
    logprobs_V = np.array([-0.1, -5.0, -60.0, -np.inf])

    result = processed(logprobs_V[None], [params], [[0, 1, 1] * 100])[0]

    assert np.exp(result).sum() == pytest.approx(1, abs=1e-12)
    assert not np.isnan(result).any()


def test_equal_biases_change_nothing() -> None:
    logits = [2.0, 0.0, 1.0]
    params = SamplingParams(logit_bias=dict.fromkeys(range(3), -100.0))

    result = processed(distribution(logits)[None], [params], [[]])[0]

    np.testing.assert_allclose(result, distribution(logits), atol=1e-12)


def test_a_list_and_an_array_of_recent_tokens_are_alike() -> None:
    recent = np.random.default_rng(0).integers(0, 5, 400).tolist()
    logprobs, params = distribution([1.0] * 5)[None], [SamplingParams(frequency_penalty=0.01)]

    from_list = processed(logprobs, params, [recent])
    from_array = processed(logprobs, params, [array("q", recent)])

    assert from_list.tolist() == from_array.tolist()


MIXED = [
    SamplingParams(),
    SamplingParams(temperature=0.8),
    SamplingParams(temperature=0.0),
    SamplingParams(top_k=20),
    SamplingParams(top_p=0.9, temperature=1.3),
    SamplingParams(min_p=0.02, typical_p=0.95),
    SamplingParams(repetition_penalty=1.2, penalty_window=64),
    SamplingParams(presence_penalty=0.3, frequency_penalty=0.1, logit_bias={3: 1.5}),
]


@pytest.mark.parametrize("vocab_size", [2, 7, 65, 257, 1000])
def test_the_batch_changes_no_bit(vocab_size: int) -> None:
    """Sixty-four rows of all kinds together, in part, in reverse and one by one."""
    random = np.random.default_rng(vocab_size)
    num_rows = 64
    logits_BV = (random.normal(size=(num_rows, vocab_size)) * 3).astype(np.float32)
    biasless = [p for p in MIXED if all(i < vocab_size for i in p.logit_bias)]
    params = [biasless[row % len(biasless)] for row in range(num_rows)]
    recent = [random.integers(0, vocab_size, row * 5).tolist() for row in range(num_rows)]
    words = np.arange(num_rows, dtype=np.uint64)
    sampled = _sampler(logits_BV, params, recent, uniforms(words, words, words))
    together = sampled(list(range(num_rows)))

    alone = {row: sampled([row])[row] for row in range(num_rows)}
    some = sampled(list(range(3, 40, 3)))
    reverse = sampled(list(range(num_rows))[::-1])

    assert alone == together == reverse
    assert some == {row: together[row] for row in some}


def _sampler(
    logits_BV: NDArray[np.float32],
    params: list[SamplingParams],
    recent: list[list[int]],
    uniforms_B: Floats,
) -> Callable[[list[int]], dict[int, tuple[int, float]]]:
    """Samples the chosen rows together; returns the results by row."""

    def sampled(rows: list[int]) -> dict[int, tuple[int, float]]:
        ids, logprobs = sample_rows(
            logprobs_from(logits_BV[rows]),
            [params[row] for row in rows],
            [recent[row] for row in rows],
            uniforms_B[rows],
        )
        return dict(zip(rows, zip(ids.tolist(), logprobs.tolist(), strict=True), strict=True))

    return sampled


@pytest.mark.parametrize("vocab_size", [3, 65, 500])
def test_strides_change_no_bit(vocab_size: int) -> None:
    """Logits may be a slice of a larger array, or have columns first."""
    random = np.random.default_rng(0)
    logits_BTV = random.normal(size=(9, 4, vocab_size)).astype(np.float32)
    plain = logprobs_from(logits_BTV[:, 2].copy())

    assert logprobs_from(logits_BTV[:, 2]).tolist() == plain.tolist()
    assert logprobs_from(np.asfortranarray(logits_BTV[:, 2])).tolist() == plain.tolist()
