"""Rejection and sequential Monte Carlo against the conditional distribution, text by text."""

import re
from collections import Counter
from math import exp, fsum, log

import numpy as np
import pytest
import torch
from tiny_model import TOKEN_BYTES, TinyModel, finished, logprob, spelled, strings

from charlm_model.constraints.conditional_sampling import (
    NoMatch,
    SampledOutput,
    SamplingTask,
    rejection_sampling,
    sequential_monte_carlo,
)
from charlm_model.constraints.constraint import Constraint, from_regex
from charlm_model.constraints.guide import Guide, masked
from charlm_model.inference.batched_steps import Stepper
from charlm_model.inference.sampling_loop import generate
from charlm_model.sampling.draw import logprobs_from
from charlm_model.sampling.params import SamplingParams
from charlm_model.text.vocabulary import END_OF_TEXT_ID

MODEL = TinyModel(seed=4)
MAX_TOKENS = 4
PATTERN = "(ab|b)*c?|a{3,4}"


def task(
    constraint: Constraint, seed: int, *, max_tokens: int = MAX_TOKENS, **params: float
) -> SamplingTask:
    logits_11V, state = MODEL.advance(torch.tensor([[0]]), MODEL.initial_state(1))
    return SamplingTask(
        stepper=Stepper(MODEL, (1, 2, 4, 8)),
        state=state,
        logits_1V=logits_11V[:, -1],
        recent=[],
        params=SamplingParams(**params),  # type: ignore[arg-type]
        seed=seed,
        output=0,
        new_guide=lambda: Guide(constraint, max_tokens),
    )


def posterior(pattern: str) -> tuple[dict[tuple[int, ...], float], float]:
    """The conditional probability of every matching output, and the log of their sum."""
    constraint = from_regex(pattern, TOKEN_BYTES)
    found = {}
    for length in range(MAX_TOKENS + 1):
        for ids in strings(length):
            if re.fullmatch(pattern, spelled(ids)) and _goes_on(constraint, ids):
                is_ended = length == MAX_TOKENS or constraint.is_complete(
                    constraint.state_after(ids)
                )
                output = ids if is_ended else (*ids, END_OF_TEXT_ID)
                found[output] = exp(logprob(MODEL, output))
    total = fsum(found.values())
    return {output: p / total for output, p in found.items()}, log(total)


def _goes_on(constraint: Constraint, ids: tuple[int, ...]) -> bool:
    return not any(
        constraint.is_complete(constraint.state_after(ids[:at])) for at in range(len(ids))
    )


def distance(counts: Counter[tuple[int, ...]], wanted: dict[tuple[int, ...], float]) -> float:
    """Total variation distance: 0 for equal distributions, 1 for disjoint ones."""
    total = counts.total()
    outputs = {*counts, *wanted}
    return sum(abs(counts[each] / total - wanted.get(each, 0)) for each in outputs) / 2


@pytest.mark.slow
@pytest.mark.parametrize("num_together", [1, 7])
def test_rejection_samples_the_conditional_distribution(num_together: int) -> None:
    wanted, _ = posterior(PATTERN)
    constraint = from_regex(PATTERN, TOKEN_BYTES)
    counts: Counter[tuple[int, ...]] = Counter()
    for seed in range(800):
        output = finished(rejection_sampling(task(constraint, seed), 1000, num_together))
        assert isinstance(output, SampledOutput)
        counts[tuple(output.ids)] += 1

    assert set(counts) <= set(wanted)
    assert distance(counts, wanted) < 0.06


def test_the_number_of_attempts_together_changes_nothing() -> None:
    constraint = from_regex(PATTERN, TOKEN_BYTES)
    for seed in range(20):
        one, many = (
            finished(rejection_sampling(task(constraint, seed), 1000, together))
            for together in (1, 9)
        )
        assert isinstance(one, SampledOutput)
        assert isinstance(many, SampledOutput)
        assert (one.ids, one.sampling_logprobs, one.log_masses) == (
            many.ids,
            many.sampling_logprobs,
            many.log_masses,
        )


def test_a_matching_first_attempt_equals_plain_sampling() -> None:
    constraint = from_regex("[abc]*", TOKEN_BYTES)

    for seed in range(20):
        output = finished(rejection_sampling(task(constraint, seed), 1, 1))

        assert isinstance(output, SampledOutput)
        plain = generate(MODEL, [], max_new_tokens=MAX_TOKENS, seed=seed)
        assert [token for token in output.ids if token != END_OF_TEXT_ID] == plain.ids


@pytest.mark.slow
def test_monte_carlo_estimates_the_evidence_without_bias_and_comes_near_the_posterior() -> None:
    wanted, log_evidence = posterior(PATTERN)
    constraint = from_regex(PATTERN, TOKEN_BYTES)
    counts: Counter[tuple[int, ...]] = Counter()
    evidences = []
    for seed in range(400):
        output = finished(sequential_monte_carlo(task(constraint, seed), 16))
        assert isinstance(output, SampledOutput)
        assert output.log_evidence is not None
        assert output.effective_sample_size is not None
        assert 1 <= output.effective_sample_size <= 16 + 1e-9
        counts[tuple(output.ids)] += 1
        evidences.append(exp(output.log_evidence))

    assert set(counts) <= set(wanted)
    assert distance(counts, wanted) < 0.12
    error = np.std(evidences) / len(evidences) ** 0.5
    assert np.mean(evidences) == pytest.approx(exp(log_evidence), abs=4 * error)
    assert error < 0.05 * exp(log_evidence)


def test_no_match_if_the_filters_exclude_all_allowed_tokens() -> None:
    best = int(np.argmax(logprobs_from(MODEL.logits_VVV[0, 0][None].numpy())))
    other = next(letter for letter in "abc" if TOKEN_BYTES[best] != letter.encode())
    constraint = from_regex(f"{other}+", TOKEN_BYTES)

    with pytest.raises(NoMatch):
        finished(sequential_monte_carlo(task(constraint, 1, top_k=1), 4))
    with pytest.raises(NoMatch):
        finished(rejection_sampling(task(constraint, 1, temperature=0), 5, 2))


def test_masking_step_by_step_sums_to_one_over_the_language() -> None:
    """LOCAL_MASK is a distribution over matching outputs, given exactly by its masses."""
    constraint = from_regex(PATTERN, TOKEN_BYTES)
    wanted, _ = posterior(PATTERN)
    total = 0.0
    for output in wanted:
        guide = Guide(constraint, MAX_TOKENS)
        sampling = masses = 0.0
        for at, token in enumerate(output):
            logits_1TV, _ = MODEL.advance(torch.tensor([[0, *output[:at]]]), MODEL.initial_state(1))
            allowed_V = guide.allowed_V
            assert allowed_V is not None
            masked_1V, mass_1 = masked(logprobs_from(logits_1TV[0, -1:].numpy()), allowed_V[None])
            sampling, masses = sampling + masked_1V[0, token], masses + mass_1[0]
            guide.take(token)
        assert guide.is_over
        assert guide.is_accepting
        assert sampling + masses == pytest.approx(logprob(MODEL, output))
        total += exp(sampling)

    assert total == pytest.approx(1)
