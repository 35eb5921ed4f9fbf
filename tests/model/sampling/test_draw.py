"""Logits processors agree with plain formulas, and draws with their distribution."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from charlm_model.errors import InvalidSampling
from charlm_model.sampling.draw import draw, logprobs_from
from charlm_model.sampling.params import SamplingParams
from charlm_model.sampling.philox import uniforms
from charlm_model.sampling.processors import processed
from charlm_model.sampling.sampler import sample_rows

Floats = NDArray[np.float64]

LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=12)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    top_k=st.integers(0, 15),
    top_p=st.sampled_from([0.01, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.1, 1.0]),
    typical_p=st.sampled_from([0.1, 0.7, 1.0]),
    repetition_penalty=st.sampled_from([0.5, 1.0, 2.0]),
    presence_penalty=st.sampled_from([-1.0, 0.0, 1.0]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    logit_bias=st.sampled_from([{}, {0: 3.0}, {0: -100.0}]),
)


def after(logits: Sequence[float], params: SamplingParams, recent: Sequence[int] = ()) -> Floats:
    """The probabilities that one row is drawn from."""
    logprobs = logprobs_from(np.array([logits], np.float32))
    return np.exp(processed(logprobs, [params], [list(recent)])[0])


def softmax(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


@given(logits=LOGITS)
def test_logprobs_sum_to_one(logits: list[float]) -> None:
    assert np.exp(logprobs_from(np.array([logits], np.float32))).sum() == pytest.approx(
        1, abs=1e-12
    )


@given(logits=LOGITS, params=PARAMS, recent=st.lists(st.just(0), max_size=3))
def test_every_distribution_sums_to_one(
    logits: list[float], params: SamplingParams, recent: list[int]
) -> None:
    p = after(logits, params, recent)

    assert p.sum() == pytest.approx(1, abs=1e-9)
    assert (p >= 0).all()


@given(logits=LOGITS, temperature=st.floats(0.1, 10))
def test_temperature_divides_logits(logits: list[float], temperature: float) -> None:
    expected = softmax(np.array(logits, np.float32).astype(float) / temperature)

    np.testing.assert_allclose(after(logits, SamplingParams(temperature=temperature)), expected)


def test_temperature_0_is_greedy_with_ties_to_the_lowest_id() -> None:
    assert after([1, 3, 3, 2], SamplingParams(temperature=0)).tolist() == [0, 1, 0, 0]


def test_top_k_keeps_k_and_of_ties_the_lower_ids() -> None:
    assert (after([1, 2, 2, 2], SamplingParams(top_k=2)) > 0).tolist() == [False, True, True, False]
    assert (after([1, 2], SamplingParams(top_k=9)) > 0).all()


@given(logits=LOGITS, p=st.floats(0.01, 0.99))
def test_top_p_is_the_smallest_set_that_reaches_p(logits: list[float], p: float) -> None:
    original = softmax(np.array(logits, np.float32).astype(float))
    kept = after(logits, SamplingParams(top_p=p)) > 0

    order = sorted(range(len(logits)), key=lambda i: (-original[i], i))
    count, mass = 0, 0.0
    while mass < p - 1e-12 and count < len(order):
        mass += original[order[count]]
        count += 1
    assert set(np.flatnonzero(kept)) in [set(order[:count]), set(order[: count + 1])]


def test_min_p_compares_with_the_best() -> None:
    p = after(np.log([0.5, 0.3, 0.15, 0.05]).tolist(), SamplingParams(min_p=0.4))
    np.testing.assert_allclose(p, [0.625, 0.375, 0, 0], rtol=1e-6)


def test_typical_keeps_tokens_nearest_the_entropy() -> None:
    """Entropy of (.5, .25, .125, .125) is 1.75 bits: the token of 2 bits is nearest, then 1 bit."""
    logits = np.log([0.5, 0.25, 0.125, 0.125]).tolist()

    assert (after(logits, SamplingParams(typical_p=0.2)) > 0).tolist() == [
        False,
        True,
        False,
        False,
    ]
    assert (after(logits, SamplingParams(typical_p=0.7)) > 0).tolist() == [True, True, False, False]


def test_penalties_follow_their_formulas() -> None:
    logits = np.log([0.5, 0.3, 0.2])
    params = SamplingParams(repetition_penalty=2, presence_penalty=0.5, frequency_penalty=0.25)

    expected = logits.copy()
    expected[1] = expected[1] * 2 - 0.5 - 0.25 * 2
    expected[2] = expected[2] * 2 - 0.5 - 0.25 * 1

    np.testing.assert_allclose(
        after(logits.tolist(), params, [1, 2, 1]), softmax(expected), rtol=1e-6
    )


def test_the_penalty_window_looks_at_the_last_tokens() -> None:
    params = SamplingParams(presence_penalty=5, penalty_window=2)

    np.testing.assert_allclose(after([0, 0, 0], params, [0, 1, 2]), softmax(np.array([0, -5, -5])))
    nothing = SamplingParams(presence_penalty=5, penalty_window=0)
    np.testing.assert_allclose(after([0, 0, 0], nothing, [0, 1, 2]), [1 / 3] * 3)


def test_a_bias_moves_one_token() -> None:
    np.testing.assert_allclose(
        after([0, 0, 0], SamplingParams(logit_bias={1: 2.0})), softmax(np.array([0, 2.0, 0]))
    )


@given(
    rows=st.lists(st.tuples(PARAMS, st.integers(0, 2**64 - 1)), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_a_draw_does_not_depend_on_the_rest_of_the_batch(
    rows: list[tuple[SamplingParams, int]], seed: int
) -> None:
    logits = np.random.default_rng(seed).normal(size=(len(rows), 7)).astype(np.float32) * 3
    logprobs, params = logprobs_from(logits), [row[0] for row in rows]
    recent = [[1, 2, 1]] * len(rows)
    seeds = np.array([row[1] for row in rows], np.uint64)
    u = uniforms(seeds, seeds, seeds)

    ids, chosen = sample_rows(logprobs, params, recent, u)

    for i in range(len(rows)):
        alone = sample_rows(logprobs[i : i + 1], params[i : i + 1], recent[:1], u[i : i + 1])
        assert (ids[i], chosen[i]) == (alone[0][0], alone[1][0])


def test_draws_have_the_right_frequencies() -> None:
    """By chance, chi-square with 3 degrees of freedom exceeds 21.1 once in 10,000 seeds."""
    p, count = np.array([0.5, 0.3, 0.15, 0.05]), 20_000
    positions = np.arange(count, dtype=np.uint64)
    u = uniforms(np.full(count, 7, np.uint64), np.zeros(count, np.uint64), positions)

    ids = draw(np.log(np.tile(p, (count, 1))), u)

    observed, expected = np.bincount(ids, minlength=4), p * count
    assert ((observed - expected) ** 2 / expected).sum() < 21.1


def test_a_draw_never_takes_what_is_excluded() -> None:
    logprobs = np.array([[-np.inf, 0.0, -np.inf]] * 2)

    assert draw(logprobs, np.array([0.0, 1 - 2**-53])).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", 101),
        ("top_k", -1),
        ("top_p", 0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("typical_p", 0),
        ("repetition_penalty", 0),
        ("presence_penalty", float("inf")),
        ("frequency_penalty", 101),
        ("penalty_window", 70_000),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(InvalidSampling, match=rf"{field} is .*must be (from|above) -?\d") as caught:
        SamplingParams(**{field: value})
    assert caught.value.field == field


def test_a_bias_out_of_range_is_named() -> None:
    with pytest.raises(InvalidSampling, match=r"logit_bias\[3\]"):
        SamplingParams(logit_bias={3: 101.0})
