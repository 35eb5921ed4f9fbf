"""The most probable continuations against the list of all of them."""

from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import TinyModel, V, finished, logprob, strings

from charlm_model.inference import top_continuations
from charlm_model.inference.batched_steps import Stepper
from charlm_model.inference.top_continuations import SearchLimits, TopContinuations, search
from charlm_model.text.vocabulary import END_OF_TEXT_ID

MODELS = [TinyModel(seed=seed) for seed in range(3)]


def every(model: TinyModel, length: int) -> list[tuple[tuple[int, ...], float]]:
    """All continuations of the start, best first."""
    whole = [*strings(length)]
    ended = [(*ids, END_OF_TEXT_ID) for short in range(length) for ids in strings(short)]
    scored = [(ids, logprob(model, ids)) for ids in [*whole, *ended]]
    return sorted(scored, key=lambda each: -each[1])


def found(model: TinyModel, num: int, length: int, max_steps: int = 1_000_000) -> TopContinuations:
    logits_11V, state = model.advance(torch.tensor([[0]]), model.initial_state(1))
    result = finished(
        search(
            Stepper(model, (1, 4)),
            state,
            logits_11V[:, -1],
            SearchLimits(num=num, length=length, max_steps=max_steps),
        )
    )
    assert isinstance(result, TopContinuations)
    return result


@pytest.mark.slow
@given(seed=st.integers(0, 2), num=st.integers(1, 200), length=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_search_finds_the_most_probable_continuations(seed: int, num: int, length: int) -> None:
    limits = every(MODELS[seed], length)

    result = found(MODELS[seed], num, length)

    assert result.is_complete
    assert [ids for ids, _ in result.continuations] == [ids for ids, _ in limits[:num]]
    for (_, mine), (_, yours) in zip(result.continuations, limits, strict=False):
        assert mine == pytest.approx(yours, abs=1e-5)
    if num >= len(limits):
        assert result.missing_logprob_bound == -inf
    else:
        assert result.missing_logprob_bound >= limits[num][1] - 1e-5
        assert result.missing_logprob_bound <= result.continuations[-1][1]


@pytest.mark.slow
@given(seed=st.integers(0, 2), num=st.integers(1, 20), max_steps=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_the_bound_holds_for_missing_continuations(seed: int, num: int, max_steps: int) -> None:
    result = found(MODELS[seed], num, 4, max_steps)

    listed = {ids for ids, _ in result.continuations}
    missing = [lp for ids, lp in every(MODELS[seed], 4) if ids not in listed]
    assert max(missing) <= result.missing_logprob_bound + 1e-5
    assert result.num_steps <= max_steps
    if result.is_complete:
        assert listed == {ids for ids, _ in every(MODELS[seed], 4)[:num]}


def test_evicted_states_give_the_same_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(top_continuations, "BATCH", 2)
    kept = found(MODELS[0], 30, 4)
    monkeypatch.setattr(top_continuations, "MAX_STATE_BYTES", 0)

    forgotten = found(MODELS[0], 30, 4)

    assert forgotten.continuations == kept.continuations
    assert forgotten.num_steps > kept.num_steps


def test_memory_bounds_the_search_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_continuations, "MAX_NODE_BYTES", 2000)

    result = found(MODELS[0], 100, 4)

    assert not result.is_complete
    assert result.missing_logprob_bound > -inf


def test_continuations_of_one_token_cost_no_step() -> None:
    assert found(MODELS[0], V, 1).num_steps == 0
