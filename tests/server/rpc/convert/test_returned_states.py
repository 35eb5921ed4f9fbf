"""States that come with an answer: those of the whole text, and the server keeps nothing."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from charlm.v1 import generation_pb2 as gen
from charlm.v1 import scoring_pb2 as sco
from charlm_server.config.limits import Limits
from tests.server.rpc.services.test_state import (
    TEXT,
    by_name,
    created,
    inlined,
    next_bits,
    of_text,
    refusal,
)
from tests.server.wire import Wire, serving

KINDS = [("ngram", "char"), ("gru", "char"), ("transformer", "char")]
NAMES = [f"models/{family}-{kind}" for family, kind in KINDS]


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving(*KINDS) as running:
        yield running


def request_to(model: str, **changes: Any) -> gen.GenerateRequest:
    asked: dict[str, Any] = {
        "context": of_text("abc"),
        "return_state": True,
        "sampling": {"seed": 5},
        "stopping": {"max_new_tokens": 20, "stop_sequences": ["e"]},
    }
    return gen.GenerateRequest(model=model, **{**asked, **changes})


@pytest.mark.parametrize("model", NAMES)
async def test_every_output_comes_with_its_own_state(wire: Wire, model: str) -> None:
    request = request_to(model, num_outputs=3)

    answer = await wire.generation.Generate(request)
    ends = {
        c.index: c.end for r in await wire.stream(request) for c in r.chunks if c.end.state.data
    }

    for output in answer.outputs:
        text = "abc" + output.text
        assert output.end.state.num_tokens == len(text)
        assert output.end.state == ends[output.index].state
        expected = await next_bits(wire, model, of_text(text))
        assert await next_bits(wire, model, inlined(output.end.state.data)) == expected


@pytest.mark.parametrize("model", NAMES)
async def test_every_item_asked_for_comes_with_its_own_state(wire: Wire, model: str) -> None:
    kept = await created(wire, model, "abc")
    items = [
        sco.ScoreItem(context=of_text("abc"), text="def", return_state=True),
        sco.ScoreItem(text="never mind"),
        sco.ScoreItem(context=by_name(kept), text="def", return_state=True),
    ]

    answer = await wire.scoring.Score(sco.ScoreRequest(model=model, items=items))

    first, second, third = answer.scores
    assert first.state == third.state
    assert not second.HasField("state")
    expected = await next_bits(wire, model, of_text("abcdef"))
    assert await next_bits(wire, model, inlined(first.state.data)) == expected


async def test_a_text_scored_in_turns_without_a_kept_state_sums_up(wire: Wire) -> None:
    whole = sco.ScoreItem(text=TEXT)
    [score] = (await wire.scoring.Score(sco.ScoreRequest(model=NAMES[1], items=[whole]))).scores

    found: list[float] = []
    item = sco.ScoreItem(text=TEXT[:10], return_state=True)
    for start in range(10, len(TEXT) + 10, 10):
        answer = await wire.scoring.Score(sco.ScoreRequest(model=NAMES[1], items=[item]))
        found += answer.scores[0].tokens.logprobs
        context = inlined(answer.scores[0].state.data)
        item = sco.ScoreItem(context=context, text=TEXT[start : start + 10], return_state=True)

    assert found == list(score.tokens.logprobs)


async def test_a_resumed_stream_ends_in_the_same_state(wire: Wire) -> None:
    request = request_to(NAMES[1], stopping={"max_new_tokens": 12})
    whole = await wire.stream(request, max_chunk_tokens=1)
    ids = [token for each in whole[:5] for token in each.chunks[0].tokens.token_ids]
    point = gen.ResumePoint(resume_token=whole[4].chunks[0].resume_token, received={"ids": ids})

    resumed = await wire.stream(request, resume=[point])

    assert resumed[-1].chunks[0].end.state == whole[-1].chunks[0].end.state


async def test_an_output_that_time_cut_short_comes_without_a_state(wire: Wire) -> None:
    stopping = {"max_new_tokens": 100_000, "max_time": {"nanos": 1000}}

    answer = await wire.generation.Generate(request_to(NAMES[1], stopping=stopping))

    [output] = answer.outputs
    assert output.end.finish_reason == gen.FINISH_REASON_TIME_LIMIT
    assert not output.end.HasField("state")


async def test_states_that_do_not_fit_an_answer_are_refused_before_the_work() -> None:
    limits = Limits(max_response_message_bytes=1000)
    async with serving(("gru", "char"), limits=limits) as wire:
        model = "models/gru-char"
        items = [sco.ScoreItem(text="a", return_state=True)] * 6
        for call in (
            wire.generation.Generate(request_to(model, num_outputs=6)),
            wire.scoring.Score(sco.ScoreRequest(model=model, items=items)),
        ):
            code, reason, sentence = await refusal(call)
            assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE")
            assert "fewer states" in sentence
