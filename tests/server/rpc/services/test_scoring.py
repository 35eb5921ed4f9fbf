"""Scores are exact, complete, and the same in every form of request."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest

from charlm.v1 import context_pb2, distribution_pb2
from charlm.v1 import scoring_pb2 as pb
from charlm_server.config.limits import Limits
from tests.server.wire import Wire, details_of, serving

ALL = {"ranks": True, "entropies": True, "top_k": 31, "distributions": True}


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving(("lstm", "char"), ("gru", "byte")) as running:
        yield running


def item(text: str, context: str = "", **options: Any) -> pb.ScoreItem:
    return pb.ScoreItem(context=context_pb2.Context(text=context), text=text, **options)


async def scores(
    wire: Wire, *items: pb.ScoreItem, model: str = "lstm-char", **options: Any
) -> list[pb.Score]:
    request = pb.ScoreRequest(model=f"models/{model}", items=items, **options)
    return list((await wire.scoring.Score(request)).scores)


async def test_a_text_scores_as_its_parts_do(wire: Wire) -> None:
    """Score(a + b) = Score(a) + Score(b after a), token by token and bit for bit."""
    whole, first, second = await scores(
        wire, item("hello world"), item("hello"), item(" world", context="hello")
    )

    logprobs = [*first.tokens.logprobs, *second.tokens.logprobs]
    assert list(whole.tokens.logprobs) == logprobs
    assert whole.total_logprob == math.fsum(logprobs)


async def test_many_items_of_all_lengths_score_as_they_do_alone(wire: Wire) -> None:
    items = [item("the quick brown fox "[: 1 + i % 20] * (1 + i % 7)) for i in range(60)]

    together = await scores(wire, *items)
    alone = [(await scores(wire, one))[0] for one in items[::7]]

    assert together[::7] == alone


async def test_scores_count_characters_and_bytes(wire: Wire) -> None:
    [score] = await scores(wire, item("한국 🎉", end_of_text=True), model="gru-byte")

    assert (score.num_tokens, score.num_characters, score.num_bytes) == (12, 4, 11)
    assert score.bits_per_character == pytest.approx(-score.total_logprob / math.log(2) / 4)
    assert score.bits_per_byte == pytest.approx(-score.total_logprob / math.log(2) / 11)
    assert list(score.tokens.character_offsets) == [0, 0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 4]


async def test_bytes_are_those_that_were_sent_whatever_was_replaced(wire: Wire) -> None:
    replace = context_pb2.UNKNOWN_CHARACTER_POLICY_REPLACE
    as_data = pb.ScoreItem(data="h\u1234i".encode())

    found = await scores(wire, item("h\u1234i"), as_data, unknown_characters=replace)
    [replaced] = await scores(wire, item("h i"))

    for score in found:
        assert score.tokens == replaced.tokens
        assert (score.num_bytes, replaced.num_bytes) == (5, 3)
        assert score.bits_per_byte == pytest.approx(replaced.bits_per_byte * 3 / 5)


async def test_distributions_sum_to_one_and_hold_the_scores(wire: Wire) -> None:
    [score] = await scores(wire, item("hello", context="ab"), returns=ALL)

    tokens = score.tokens
    dense = np.frombuffer(tokens.distributions.data, "<f4").reshape(5, -1)
    assert np.exp(dense.astype(float)).sum(axis=1) == pytest.approx(np.ones(5), abs=1e-6)
    assert [dense[i, token] for i, token in enumerate(tokens.token_ids)] == list(tokens.logprobs)
    order = np.argsort(-dense, axis=1, kind="stable")
    assert list(tokens.top_tokens.token_ids) == order[:, :31].ravel().tolist()
    ranks = [list(row).index(token) + 1 for row, token in zip(order, tokens.token_ids, strict=True)]
    assert list(tokens.ranks) == ranks
    assert score.is_greedy == (set(ranks) == {1})


async def test_the_greedy_continuation_is_said_to_be_greedy(wire: Wire) -> None:
    """One token is greedy exactly if its rank is 1."""
    following = [item(letter, context="ab") for letter in "abcdefghijklmnopqrstuvwxyz .,\n"]

    found = await scores(wire, *following, returns={"ranks": True})

    assert [score.is_greedy for score in found] == [score.tokens.ranks == [1] for score in found]


async def test_an_end_of_text_alone_can_be_scored(wire: Wire) -> None:
    [score] = await scores(wire, item("", end_of_text=True))

    assert (score.num_tokens, score.num_characters, score.bits_per_byte) == (1, 0, 0.0)
    assert score.total_logprob < 0


async def test_only_totals_when_nothing_is_wanted_token_by_token(wire: Wire) -> None:
    [score] = await scores(wire, item("hello"), returns={"logprobs": False})

    assert score.num_tokens == 5
    assert not score.HasField("tokens")


@pytest.mark.slow
async def test_a_long_text_is_scored_in_chunks_without_changing_a_bit(wire: Wire) -> None:
    text = "the quick brown fox jumps over. " * 300
    cut = len(text) - 100

    [whole] = await scores(wire, item(text))
    [tail] = await scores(wire, item(text[cut:], context=text[:cut]))

    assert list(whole.tokens.logprobs[cut:]) == list(tail.tokens.logprobs)


async def test_scoring_and_generation_share_the_engine(wire: Wire) -> None:
    [expected] = await scores(wire, item("hello world"))

    answers = await asyncio.gather(*(scores(wire, item("hello world")) for _ in range(10)))

    assert all(answer == [expected] for answer in answers)


@pytest.mark.parametrize(
    ("items", "field"),
    [
        ([], "items"),
        ([pb.ScoreItem()], "items[0].continuation"),
        ([item("a"), item("")], "items[1].continuation"),
        ([item("a\u1234")], "items[0].text"),
        ([item("a", context="\u1234")], "items[0].context.text"),
        ([pb.ScoreItem(token_ids={"ids": [99]})], "items[0].token_ids.ids[0]"),
        ([pb.ScoreItem(data=b"\xff")], "items[0].data"),
    ],
)
async def test_bad_items_are_refused_with_their_field(
    wire: Wire, items: list[pb.ScoreItem], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await scores(wire, *items)

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    bad_request: Any = details_of(refusal.value)["BadRequest"]
    assert bad_request.field_violations[0].field == field


async def test_an_answer_that_cannot_fit_is_refused_before_the_work() -> None:
    async with serving(("lstm", "char"), limits=Limits(max_response_message_bytes=5000)) as wire:
        with pytest.raises(grpc.aio.AioRpcError, match="StreamScore") as refusal:
            await scores(wire, item("a" * 100), returns=ALL)

        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_what_comes_next_is_the_distribution_that_scores_it(wire: Wire) -> None:
    request = pb.GetNextDistributionRequest(
        model="models/lstm-char",
        context=context_pb2.Context(text="hell"),
        top_k=3,
        data_type=distribution_pb2.DATA_TYPE_FLOAT64,
    )

    answer = await wire.scoring.GetNextDistribution(request)
    [score] = await scores(wire, item("o", context="hell"), returns=ALL)

    logprobs = np.frombuffer(answer.distribution.data, "<f8")
    assert np.exp(logprobs).sum() == pytest.approx(1.0, abs=1e-12)
    assert answer.entropy == pytest.approx(-(np.exp(logprobs) * logprobs).sum())
    assert list(answer.top_tokens.token_ids) == list(score.tokens.top_tokens.token_ids[:3])
    assert np.float32(logprobs[score.tokens.token_ids[0]]) == score.tokens.logprobs[0]


async def test_a_top_k_out_of_range_is_refused_with_the_field_of_the_whole_distribution(
    wire: Wire,
) -> None:
    request = pb.GetNextDistributionRequest(model="models/lstm-char", top_k=1000)

    with pytest.raises(grpc.aio.AioRpcError, match=r"top_k is 1000.*`distribution` has all"):
        await wire.scoring.GetNextDistribution(request)


async def test_the_start_of_a_text_has_a_distribution_too(wire: Wire) -> None:
    answer = await wire.scoring.GetNextDistribution(
        pb.GetNextDistributionRequest(model="models/lstm-char")
    )

    assert answer.distribution.vocab_size == 31
    assert len(answer.distribution.data) == 4 * 31
