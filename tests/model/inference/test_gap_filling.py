"""Fillings of gaps agree with the posterior by enumeration."""

from itertools import product
from math import exp, fsum, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import TinyModel, V, finished, logprob

from charlm_model.inference import gap_filling as gaps
from charlm_model.inference.batched_steps import Stepper
from charlm_model.inference.gap_filling import Gap, GapFillings, fill

MODEL = TinyModel(seed=2)
ids = st.lists(st.integers(1, V - 1), max_size=4).map(tuple)


def gap_of(left: tuple[int, ...], right: tuple[int, ...], length: int) -> Gap:
    logits_1TV, state = MODEL.advance(torch.tensor([[0, *left]]), MODEL.initial_state(1))
    return Gap(
        stepper=Stepper(MODEL, (1, 2)),
        state=state,
        logits_1V=logits_1TV[:, -1],
        right=right,
        length=length,
    )


def filled(
    gap: Gap, num_fillings: int = 1000, num_particles: int = 64, seed: int = 0
) -> GapFillings:
    result = finished(fill(gap, num_fillings=num_fillings, num_particles=num_particles, seed=seed))
    assert isinstance(result, GapFillings)
    return result


def joints(
    left: tuple[int, ...], right: tuple[int, ...], length: int
) -> dict[tuple[int, ...], float]:
    """Log-prob of each filling and the right text, given the left one."""
    before = logprob(MODEL, left)
    return {
        filling: logprob(MODEL, (*left, *filling, *right)) - before
        for filling in product(range(1, V), repeat=length)
    }


@pytest.mark.slow
@given(left=ids, right=ids, length=st.integers(1, 2))
@settings(max_examples=40, deadline=None)
def test_a_short_gap_has_the_exact_posterior(
    left: tuple[int, ...], right: tuple[int, ...], length: int
) -> None:
    limits = joints(left, right, length)
    evidence = log(fsum(map(exp, limits.values())))

    result = filled(gap_of(left, right, length))

    assert result.effective_sample_size is None
    assert {each.ids for each in result.fillings} == set(limits)
    assert result.log_evidence == pytest.approx(evidence, abs=1e-5)
    assert fsum(each.posterior for each in result.fillings) == pytest.approx(1)
    for each in result.fillings:
        assert each.total_logprob == pytest.approx(limits[each.ids], abs=1e-5)
        assert each.posterior == pytest.approx(exp(limits[each.ids] - evidence), abs=1e-5)
    posteriors = [each.posterior for each in result.fillings]
    assert posteriors == sorted(posteriors, reverse=True)


def test_max_fillings_truncates_the_full_list() -> None:
    gap = gap_of((1,), (2, 3), 2)

    assert filled(gap, 3).fillings == filled(gap).fillings[:3]


def test_a_longer_right_text_is_read_in_chunks_to_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gap = gap_of((1,), (2, 3, 1, 1, 2, 2, 3), 1)
    whole = filled(gap)

    monkeypatch.setattr(gaps, "MAX_TOKENS", 2 * 2)

    assert filled(gap) == whole


@pytest.mark.slow
@pytest.mark.parametrize("max_last", [300, 0], ids=["last tried out", "all sampled"])
def test_a_long_gap_comes_near_the_posterior_and_its_evidence_is_unbiased(
    monkeypatch: pytest.MonkeyPatch, max_last: int
) -> None:
    monkeypatch.setattr(gaps, "_MAX_LAST", max_last)
    left, right, length = (1,), (2, 3), 3
    limits = joints(left, right, length)
    evidence = fsum(map(exp, limits.values()))
    gap = gap_of(left, right, length)

    many = filled(gap, num_particles=2000)
    few = [exp(filled(gap, num_particles=4, seed=seed).log_evidence) for seed in range(200)]

    assert many.effective_sample_size is not None
    assert 200 < many.effective_sample_size <= 2000
    apart = sum(abs(each.posterior - exp(limits[each.ids]) / evidence) for each in many.fillings)
    assert apart / 2 < 0.06
    for each in many.fillings:
        assert each.total_logprob == pytest.approx(limits[each.ids], abs=1e-5)
    spread = torch.tensor(few).std().item() / len(few) ** 0.5
    assert fsum(few) / len(few) == pytest.approx(evidence, abs=4 * spread)


def test_a_seed_gives_the_same_fillings() -> None:
    gap = gap_of((1,), (2, 3), 4)

    assert filled(gap, seed=5) == filled(gap, seed=5)
    assert filled(gap, seed=5) != filled(gap, seed=6)
