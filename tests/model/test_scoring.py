"""Scores agree with plain loops, and with the log-probs that generation returns."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm_model import scoring
from charlm_model.exact_sum import ExactSum
from charlm_model.families.registry import FAMILIES
from charlm_model.inference.sampling_loop import generate
from charlm_model.language_model import LanguageModel
from charlm_model.sampling.params import SamplingParams
from charlm_model.scoring import (
    Evaluation,
    score,
    score_tokens,
    total_logprob,
)

MakeModel = Callable[..., LanguageModel]
float32s = st.floats(allow_nan=False, allow_infinity=False, width=32)


def nats(model: LanguageModel, inputs: list[int], targets: list[int]) -> float:
    """Minus the log-prob of the targets, one step at a time from a cold state."""
    state, total = model.initial_state(1), 0.0
    for token_id, target in zip(inputs, targets, strict=True):
        logits_1V, state = model.step(torch.tensor([token_id]), state)
        total -= float(logits_1V[0].double().log_softmax(-1)[target])
    return total


def random_ids(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 11, count)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(temperature=0.5, top_k=3, presence_penalty=1)]
)
def test_what_was_generated_scores_what_was_streamed(
    family: str, params: SamplingParams, make_model: MakeModel
) -> None:
    """Bit for bit, with and without processors: log-probs are always the model's own."""
    model, prompt = make_model(family), [3, 1, 4]
    generated = generate(model, prompt, max_new_tokens=40, params=params, seed=5)
    _, state = model.advance(torch.tensor([[0, *prompt[:-1]]]), model.initial_state(1))

    scores, _ = score(model, generated.ids, state, prompt[-1])

    assert scores.logprobs.tolist() == generated.logprobs


@pytest.mark.parametrize("family", FAMILIES)
def test_scoring_in_two_parts_is_scoring_the_whole(family: str, make_model: MakeModel) -> None:
    model, ids = make_model(family), random_ids(60).tolist()

    whole, _ = score(model, ids, model.initial_state(1), 0)
    first, state = score(model, ids[:23], model.initial_state(1), 0)
    second, _ = score(model, ids[23:], state, ids[22])

    assert [*first.logprobs, *second.logprobs] == whole.logprobs.tolist()


def test_memory_is_bounded_by_chunks(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = make_model("lstm"), random_ids(50).tolist()
    whole, _ = score(model, ids, model.initial_state(1), 0)

    monkeypatch.setattr(scoring, "_MAX_LOGITS", 77)
    chunked, _ = score(model, ids, model.initial_state(1), 0)

    assert chunked.logprobs.tolist() == whole.logprobs.tolist()


def test_ranks_and_entropies() -> None:
    """Of equally probable tokens the one with the lower id ranks first."""
    logits_TV = torch.tensor([[0.5, 0.25, 0.25], [1 / 3] * 3, [0.5, 0.25, 0.25]]).log()

    scores = score_tokens(logits_TV, np.array([2, 1, 0]))

    assert scores.ranks.tolist() == [3, 2, 1]
    np.testing.assert_allclose(
        scores.entropies, [1.5 * math.log(2), math.log(3), 1.5 * math.log(2)]
    )
    np.testing.assert_allclose(scores.logprobs, np.log([0.25, 1 / 3, 0.5]))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [0, 1, 70])
def test_a_total_is_the_sum_of_the_scores_rounded_once(
    family: str, count: int, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = make_model(family), random_ids(count)
    monkeypatch.setattr(scoring, "_CHUNK", 16)

    total = total_logprob(model, ids)

    scores = score(model, ids.tolist(), model.initial_state(1), 0)[0] if count else None
    assert total == (math.fsum(scores.logprobs.tolist()) if scores else 0.0)
    assert total == pytest.approx(-nats(model, [0, *ids[:-1].tolist()][:count], ids.tolist()))


@given(st.lists(st.lists(float32s, max_size=30), max_size=6))
def test_exact_sums_are_fsum_whatever_the_parts(parts: list[list[float]]) -> None:
    total = ExactSum()
    for part in parts:
        total.add(np.array(part, np.float32))

    assert total.value == math.fsum(number for part in parts for number in part)


def test_bits_per_byte_uses_the_number_of_bytes() -> None:
    evaluation = Evaluation(protocol="p", num_tokens=9, num_characters=3, num_bytes=9, nats=6.0)

    assert evaluation.bits_per_byte == pytest.approx(evaluation.bits_per_character / 3)
    assert evaluation.nats_per_token == pytest.approx(evaluation.bits_per_byte * math.log(2))
    assert set(evaluation.to_json()) >= {"protocol", "bits_per_byte", "bits_per_character"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_the_same_text(family: str, make_model: MakeModel) -> None:
    model = make_model(family)

    texts = [generate(model, [1], max_new_tokens=30, seed=seed).ids for seed in (1, 1, 2)]

    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_temperature_0_needs_no_seed(make_model: MakeModel) -> None:
    model, greedy = make_model("gru"), SamplingParams(temperature=0)

    texts = [generate(model, [], max_new_tokens=20, params=greedy, seed=s).ids for s in (1, 2)]

    assert texts[0] == texts[1]


def test_generation_ends_at_the_end_of_text(make_model: MakeModel) -> None:
    model = make_model("gru")
    ended = SamplingParams(logit_bias={0: 100.0})

    assert generate(model, [1], max_new_tokens=5, params=ended).ids == []
    going_on = generate(model, [1], max_new_tokens=5, params=ended, stop_at_end_of_text=False)
    assert going_on.ids == [0] * 5
