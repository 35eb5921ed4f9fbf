"""Comparing is scoring under every model, and Bayes' rule on top."""

import math
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.v1 import context_pb2
from charlm.v1 import scoring_pb2 as pb
from charlm_model.scoring import posteriors
from charlm_server.config.limits import Limits
from tests.server.wire import Wire, details_of, serving

MODELS = ["models/lstm-char", "models/gru-byte", "models/rnn-byte"]
TEXTS = ["hello world", "a", "the quick brown fox, and more.\n" * 20]

logprobs_and_priors = st.lists(
    st.tuples(st.floats(-1e7, 0), st.floats(1e-300, 1e300)), min_size=1, max_size=6
)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving(("lstm", "char"), ("gru", "byte"), ("rnn", "byte")) as running:
        yield running


async def compare(
    wire: Wire, texts: list[str], models: list[str] = MODELS, **options: Any
) -> pb.CompareResponse:
    request = pb.CompareRequest(models=models, texts=texts, **options)
    return await wire.scoring.Compare(request)


async def test_every_model_gives_the_very_bits_of_score(wire: Wire) -> None:
    compared = await compare(wire, TEXTS)

    for number, model in enumerate(MODELS):
        items = [pb.ScoreItem(text=text) for text in TEXTS]
        scored = await wire.scoring.Score(pb.ScoreRequest(model=model, items=items))
        column = [each.total_logprobs[number] for each in compared.comparisons]
        assert column == [score.total_logprob for score in scored.scores]
        column = [each.bits_per_byte[number] for each in compared.comparisons]
        assert column == [score.bits_per_byte for score in scored.scores]
        assert compared.model_digests[number] == scored.model_digest
        assert compared.numerics.id == scored.numerics.id


async def test_posteriors_are_bayes_rule_by_hand(wire: Wire) -> None:
    priors = [0.5, 0.3, 0.2]

    compared = await compare(wire, ["a"], priors=priors)

    (row,) = compared.comparisons
    joint = [p * math.exp(nats) for p, nats in zip(priors, row.total_logprobs, strict=True)]
    assert list(row.posteriors) == pytest.approx([each / sum(joint) for each in joint])
    assert min(row.posteriors) > 0.001  # or the rule would hardly have been tried


async def test_no_priors_are_equal_priors(wire: Wire) -> None:
    without = await compare(wire, TEXTS)
    alike = await compare(wire, TEXTS, priors=[1.0, 1.0, 1.0])

    assert without == alike


async def test_one_model_alone_is_certain(wire: Wire) -> None:
    compared = await compare(wire, TEXTS, models=MODELS[:1])

    assert [list(row.posteriors) for row in compared.comparisons] == [[1.0]] * len(TEXTS)


@given(logprobs_and_priors)
def test_posteriors_sum_to_one_however_small_everything_is(
    pairs: list[tuple[float, float]],
) -> None:
    found = posteriors(*zip(*pairs, strict=True))

    assert math.fsum(found) == pytest.approx(1.0, abs=1e-15)
    assert all(0 <= each <= 1 for each in found)


@given(logprobs_and_priors, st.floats(1e-5, 1e5))
def test_only_the_ratios_of_priors_count(pairs: list[tuple[float, float]], factor: float) -> None:
    logprobs, priors = zip(*pairs, strict=True)
    small = [prior**0.9 for prior in priors]  # so that no product overflows

    scaled = posteriors(logprobs, [factor * prior for prior in small])

    assert scaled == pytest.approx(posteriors(logprobs, small), rel=1e-8, abs=1e-300)


@given(st.floats(-1e6, 0), st.floats(-30, 30))
def test_a_difference_of_log_probs_is_the_log_odds(nats: float, difference: float) -> None:
    other = nats - difference
    first, second = posteriors([nats, other], [1.0, 1.0])

    assert math.log(first / second) == pytest.approx(nats - other, abs=1e-9)


@pytest.mark.parametrize(
    ("models", "texts", "priors", "field"),
    [
        ([], ["a"], [], "models"),
        ([MODELS[0], MODELS[1], MODELS[0]], ["a"], [], "models[2]"),
        (MODELS, [], [], "texts"),
        (MODELS, ["a", ""], [], "texts[1]"),
        (MODELS, ["a", "b\u1234"], [], "texts[1]"),
        (MODELS, ["a"], [1.0], "priors"),
        (MODELS, ["a"], [1.0, 0.0, 1.0], "priors[1]"),
        (MODELS, ["a"], [1.0, 1.0, -1.0], "priors[2]"),
        (MODELS, ["a"], [math.inf, 1.0, 1.0], "priors[0]"),
        (MODELS, ["a"], [math.nan, 1.0, 1.0], "priors[0]"),
    ],
)
async def test_bad_comparisons_are_refused_with_their_field(
    wire: Wire, models: list[str], texts: list[str], priors: list[float], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await compare(wire, texts, models, priors=priors)

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    bad_request: Any = details_of(refusal.value)["BadRequest"]
    assert bad_request.field_violations[0].field == field


async def test_a_refused_character_tells_which_model_does_not_know_it(wire: Wire) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=r"offset 1 .* The model is models/lstm-char\."):
        await compare(wire, ["b\u1234"])


async def test_an_unknown_character_may_be_replaced(wire: Wire) -> None:
    policy = context_pb2.UNKNOWN_CHARACTER_POLICY_REPLACE

    compared = await compare(wire, ["b\u1234"], unknown_characters=policy)
    replaced = await compare(wire, ["b "])

    [one], [other] = compared.comparisons, replaced.comparisons
    assert one.total_logprobs[0] == other.total_logprobs[0]
    # Of the bytes that were sent: four, where the replacement has two.
    assert one.bits_per_byte[0] == pytest.approx(other.bits_per_byte[0] / 2)


async def test_an_unknown_model_is_not_found(wire: Wire) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await compare(wire, ["a"], ["models/lstm-char", "models/other"])

    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


async def test_too_many_tokens_are_refused_by_the_limit() -> None:
    async with serving(("lstm", "char"), limits=Limits(max_score_tokens=10)) as wire:
        with pytest.raises(grpc.aio.AioRpcError, match=r"tokens in all.* from 1 to 10\."):
            await compare(wire, ["hello world"], MODELS[:1])
