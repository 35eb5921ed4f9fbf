"""States over the wire: whatever way a text was read, what is known of it has the same bits."""

from __future__ import annotations  # the asynchronous stubs exist for type checkers only

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charlm.v1 import context_pb2
from charlm.v1 import generation_pb2 as gen
from charlm.v1 import inference_pb2 as inf
from charlm.v1 import scoring_pb2 as sco
from charlm.v1 import state_pb2 as pb
from charlm_server.config.limits import Limits
from tests.server.wire import LATIN, Wire, column, details_of, serving, text_of

FAMILIES = ["ngram", "rnn", "gru", "lstm", "transformer"]
MIXTURES = ("online-char=online:gru-char,lstm-char",)
NAMES = [f"models/{family}-char" for family in (*FAMILIES, "online")]
CODE = grpc.StatusCode
TEXT = "the quick brown fox jumps over the lazy dog and then it sleeps for a long long time"


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with replica() as running:
        yield running


def replica() -> AbstractAsyncContextManager[Wire]:
    return serving(*[(family, "char") for family in FAMILIES], mixtures=MIXTURES)


async def created(wire: Wire, model: str, text: str = "", **options: Any) -> pb.State:
    request = pb.CreateStateRequest(model=model, context={"text": text}, **options)
    return (await wire.states.CreateState(request)).state


async def advanced(wire: Wire, state: pb.State, text: str, **options: Any) -> Any:
    request = pb.AdvanceStateRequest(name=state.name, text=text, **options)
    return await wire.states.AdvanceState(request)


async def exported(wire: Wire, name: str) -> bytes:
    call = wire.states.ExportState(pb.ExportStateRequest(name=name))
    return b"".join([response.data async for response in call])


def pieces(data: bytes, size: int = 1 << 20) -> Iterator[pb.ImportStateRequest]:
    for start in range(0, len(data), size):
        yield pb.ImportStateRequest(data=data[start : start + size])


async def imported(wire: Wire, data: bytes) -> pb.State:
    return (await wire.states.ImportState(pieces(data))).state


def by_name(state: pb.State) -> context_pb2.Context:
    return context_pb2.Context(state={"name": state.name})


def inlined(data: bytes) -> context_pb2.Context:
    return context_pb2.Context(state={"inline_state": data})


def of_text(text: str) -> context_pb2.Context:
    return context_pb2.Context(text=text)


async def next_bits(wire: Wire, model: str, context: context_pb2.Context) -> bytes:
    """The distribution of what comes next, in float64."""
    request = sco.GetNextDistributionRequest(model=model, context=context, data_type=2)
    return (await wire.scoring.GetNextDistribution(request)).distribution.data


async def refusal(call: Any) -> tuple[CODE, str, str]:
    """Status, reason and sentence."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = details_of(caught.value)["ErrorInfo"]
    return caught.value.code(), info.reason, caught.value.details() or ""  # type: ignore[attr-defined]


@pytest.mark.slow
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(LATIN, min_size=3, max_size=90), st.sampled_from(NAMES), st.data())
async def test_a_text_read_in_any_splits_leaves_the_same_state(
    wire: Wire, text: str, model: str, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=4)))
    parts = [text[start:stop] for start, stop in pairwise([0, *cuts, len(text)])]

    state = await created(wire, model, parts[0])
    for part in parts[1:]:
        state = (await advanced(wire, state, part)).state

    whole = await created(wire, model, text)
    assert state.num_tokens == whole.num_tokens == len(text)
    assert await exported(wire, state.name) == await exported(wire, whole.name)
    expected = await next_bits(wire, model, of_text(text))
    assert await next_bits(wire, model, by_name(state)) == expected


@pytest.mark.parametrize("model", NAMES)
async def test_all_that_is_asked_after_a_state_is_as_after_its_text(wire: Wire, model: str) -> None:
    state = await created(wire, model, TEXT[:50])
    contexts = [by_name(state), inlined(await exported(wire, state.name)), of_text(TEXT[:50])]

    scores, streams, outputs, chunks, gaps, lists = [], [], [], [], [], []
    for context in contexts:
        item = sco.ScoreItem(context=context, text=TEXT[50:])
        one = sco.ScoreItem(context=context, text="x")
        score = await wire.scoring.Score(sco.ScoreRequest(model=model, items=[item, one]))
        scores.append(score.scores)
        start = sco.StreamScoreStart(model=model, context=context)
        requests = [sco.StreamScoreRequest(start=start, data=TEXT[50:].encode())]
        streams.append([each async for each in wire.scoring.StreamScore(iter(requests))])
        request = gen.GenerateRequest(
            model=model, context=context, sampling={"seed": 7}, stopping={"max_new_tokens": 30}
        )
        request.num_outputs = 2
        outputs.append((await wire.generation.Generate(request)).outputs)
        streamed = await wire.stream(request)
        chunks.append([text_of(streamed, index) for index in range(2)])
        gap = inf.FillGapRequest(model=model, left=context, right=" a", gap_length=1)
        gaps.append((await wire.inference.FillGap(gap)).fillings)
        top = inf.ListTopContinuationsRequest(model=model, context=context, length=2)
        lists.append((await wire.inference.ListTopContinuations(top)).continuations)

    for found in (scores, streams, outputs, chunks, gaps, lists):
        assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("model", NAMES)
async def test_advancing_returns_the_same_log_prob_as_scoring(wire: Wire, model: str) -> None:
    state = await created(wire, model, "once ")
    item = sco.ScoreItem(context=of_text("once "), text=TEXT)
    scored = await wire.scoring.Score(sco.ScoreRequest(model=model, items=[item]))

    answer = await advanced(wire, state, TEXT)

    assert answer.total_logprob == scored.scores[0].total_logprob
    assert answer.state.num_tokens == len("once " + TEXT)


@pytest.mark.parametrize("model", NAMES)
async def test_a_fork_goes_its_own_way_from_where_it_left(wire: Wire, model: str) -> None:
    state = await created(wire, model, "abc")
    state = (await advanced(wire, state, "def", checkpoint=True)).state
    state = (await advanced(wire, state, "ghi")).state
    assert list(state.checkpointed_positions) == [6]

    rewound = await wire.states.ForkState(pb.ForkStateRequest(name=state.name, position=6))
    twin = await wire.states.ForkState(pb.ForkStateRequest(name=state.name))
    await advanced(wire, rewound.state, "xyz")

    expected = {"abcdefxyz": rewound.state, "abcdefghi": twin.state}
    for text, fork in [*expected.items(), ("abcdefghi", state)]:
        assert await next_bits(wire, model, by_name(fork)) == await next_bits(
            wire, model, of_text(text)
        )


@pytest.mark.parametrize("model", NAMES)
async def test_another_server_goes_on_with_an_exported_state(wire: Wire, model: str) -> None:
    state = await created(wire, model, TEXT)
    data = await exported(wire, state.name)
    expected = await next_bits(wire, model, of_text(TEXT))

    async with replica() as other:
        found = await imported(other, data)
        assert await next_bits(other, model, by_name(found)) == expected
        assert await next_bits(other, model, inlined(data)) == expected
        assert await exported(other, found.name) == data

    assert (found.model, found.num_tokens) == (model, state.num_tokens)
    assert (found.model_digest, found.numerics) == (state.model_digest, state.numerics)
    assert found.name != state.name


@pytest.mark.parametrize("model", NAMES)
async def test_a_stream_after_a_state_goes_on_by_its_resume_token(wire: Wire, model: str) -> None:
    state = await created(wire, model, TEXT)
    request = gen.GenerateRequest(
        model=model,
        context=by_name(state),
        append_text=" and on",
        sampling={"seed": 3, "frequency_penalty": 0.4, "penalty_window": 9},
        stopping={"max_new_tokens": 12, "ignore_end_of_text": True},
    )
    elsewhere = gen.GenerateRequest()
    elsewhere.CopyFrom(request)
    elsewhere.context.CopyFrom(inlined(await exported(wire, state.name)))
    whole = await wire.stream(request, max_chunk_tokens=1)
    ids = [token for each in whole for token in each.chunks[0].tokens.token_ids]
    assert len(ids) == len(whole) == 12

    for cut in range(1, len(whole)):
        token = whole[cut - 1].chunks[0].resume_token
        point = gen.ResumePoint(resume_token=token, received={"ids": ids[:cut]})
        for again in (request, elsewhere):
            rest = await wire.stream(again, max_chunk_tokens=1, resume=[point])
            assert text_of(rest) == text_of(whole[cut:])
            assert column(rest, "logprobs") == column(whole[cut:], "logprobs")
            assert column(rest, "sampling_logprobs") == column(whole[cut:], "sampling_logprobs")
    await advanced(wire, state, "x")
    request.context.CopyFrom(by_name(state))
    with pytest.raises(grpc.aio.AioRpcError, match="another request"):
        await wire.stream(request, resume=[point])


async def test_an_outdated_etag_is_refused(wire: Wire) -> None:
    state = await created(wire, "models/gru-char")
    answer = await advanced(wire, state, "a", etag=state.etag)
    assert answer.state.etag != state.etag

    code, reason, sentence = await refusal(advanced(wire, state, "b", etag=state.etag))

    assert (code, reason) == (CODE.ABORTED, "ETAG_MISMATCH")
    assert answer.state.etag in sentence


async def test_concurrent_advances_of_one_state_take_turns(wire: Wire) -> None:
    state = await created(wire, "models/gru-char")

    answers = await asyncio.gather(*(advanced(wire, state, "ab" * 50) for _ in range(8)))

    assert sorted(answer.state.num_tokens for answer in answers) == [100 * n for n in range(1, 9)]
    expected = await next_bits(wire, "models/gru-char", of_text("ab" * 400))
    assert await next_bits(wire, "models/gru-char", by_name(state)) == expected


@pytest.mark.parametrize("model", NAMES)
async def test_states_are_the_same_in_any_batch(wire: Wire, model: str) -> None:
    """Many states advance by their own steps while texts are written and scored."""

    async def exported_in_steps(size: int) -> bytes:
        state = await created(wire, model)
        for start in range(0, len(TEXT), size):
            state = (await advanced(wire, state, TEXT[start : start + size])).state
        return await exported(wire, state.name)

    request = gen.GenerateRequest(
        model=model, context=of_text("a"), stopping={"max_new_tokens": 60}, num_outputs=3
    )
    item = sco.ScoreItem(text=TEXT)
    expected = await exported(wire, (await created(wire, model, TEXT)).name)

    found = await asyncio.gather(
        *(exported_in_steps(size) for size in (7, 13, 20, 41, 100)),
        *(wire.stream(request) for _ in range(4)),
        *(wire.scoring.Score(sco.ScoreRequest(model=model, items=[item] * 5)) for _ in range(4)),
    )

    assert found[:5] == [expected] * 5


async def test_a_state_is_forgotten_after_its_time(wire: Wire) -> None:
    now = 0.0
    wire.app.states.clock = lambda: now
    state = await created(wire, "models/gru-char", time_to_live={"seconds": 5})
    assert state.expire_time.ToSeconds() - time.time() < 6
    now = 5.0

    code, reason, _ = await refusal(wire.states.GetState(pb.GetStateRequest(name=state.name)))

    assert (code, reason) == (CODE.NOT_FOUND, "STATE_NOT_FOUND")


async def test_a_deleted_state_is_gone(wire: Wire) -> None:
    state = await created(wire, "models/gru-char")
    await wire.states.DeleteState(pb.DeleteStateRequest(name=state.name))

    for call in (
        wire.states.DeleteState(pb.DeleteStateRequest(name=state.name)),
        wire.states.ForkState(pb.ForkStateRequest(name=state.name)),
        advanced(wire, state, "a"),
        exported(wire, state.name),
        next_bits(wire, "models/gru-char", by_name(state)),
    ):
        assert (await refusal(call))[0] is CODE.NOT_FOUND


async def test_states_are_listed_page_by_page(wire: Wire) -> None:
    names = [(await created(wire, "models/gru-char")).name for _ in range(5)]
    await created(wire, "models/rnn-char")

    found, token = [], ""
    while True:
        request = pb.ListStatesRequest(model="models/gru-char", page_size=2, page_token=token)
        page = await wire.states.ListStates(request)
        found += [state.name for state in page.states]
        assert len(page.states) <= 2
        if not (token := page.next_page_token):
            break

    assert found == sorted(names)
    assert len((await wire.states.ListStates(pb.ListStatesRequest())).states) == 6


async def test_a_full_server_refuses_and_says_when_to_come_again() -> None:
    async with serving(("gru", "char"), limits=Limits(max_states=1)) as wire:
        state = await created(wire, "models/gru-char", time_to_live={"seconds": 30})
        data = await exported(wire, state.name)

        for call in (
            created(wire, "models/gru-char"),
            imported(wire, data),
            wire.states.ForkState(pb.ForkStateRequest(name=state.name)),
        ):
            code, reason, sentence = await refusal(call)
            assert (code, reason) == (CODE.RESOURCE_EXHAUSTED, "TOO_MANY_STATES")
            assert "again in 30 s" in sentence
        await advanced(wire, state, "abc")


async def test_a_state_of_another_model_is_refused(wire: Wire) -> None:
    state = await created(wire, "models/gru-char")
    data = await exported(wire, state.name)

    async with serving(("lstm", "char")) as other:
        for call in (
            next_bits(wire, "models/lstm-char", by_name(state)),
            next_bits(wire, "models/lstm-char", inlined(data)),
            imported(other, data),
        ):
            code, reason, sentence = await refusal(call)
            assert (code, reason) == (CODE.FAILED_PRECONDITION, "STATE_MODEL_MISMATCH")
            assert state.model_digest in sentence


async def test_damaged_bytes_are_refused(wire: Wire) -> None:
    data = await exported(wire, (await created(wire, "models/gru-char")).name)
    changed = data[:200] + bytes([data[200] ^ 1]) + data[201:]

    for damaged in (changed, data[:-1], b"no state at all"):
        for call in (
            imported(wire, damaged),
            next_bits(wire, "models/gru-char", inlined(damaged)),
        ):
            assert (await refusal(call))[:2] == (CODE.DATA_LOSS, "STATE_DAMAGED")


async def test_an_import_is_bounded(wire: Wire) -> None:
    request = pb.ImportStateRequest(data=b"x" * (1 << 20))

    code, _, sentence = await refusal(wire.states.ImportState(iter([request] * 4)))

    assert code is CODE.INVALID_ARGUMENT
    assert "bytes in all" in sentence


@pytest.mark.parametrize(
    ("method", "request_of", "field"),
    [
        ("CreateState", lambda _: pb.CreateStateRequest(model=NAMES[0], time_to_live={}), "live"),
        (
            "CreateState",
            lambda _: pb.CreateStateRequest(model=NAMES[0], time_to_live={"seconds": 90_000}),
            "time_to_live",
        ),
        (
            "CreateState",
            lambda _: pb.CreateStateRequest(model=NAMES[0], context={"state": {}}),
            "context.state",
        ),
        (
            "CreateState",
            lambda _: pb.CreateStateRequest(model=NAMES[0], context={"text": "é"}),
            r"context\.text",
        ),
        ("AdvanceState", lambda name: pb.AdvanceStateRequest(name=name), "continuation"),
        ("AdvanceState", lambda name: pb.AdvanceStateRequest(name=name, text="é"), r"U\+00E9"),
        ("ListStates", lambda _: pb.ListStatesRequest(page_size=0), "page_size"),
        ("ListStates", lambda _: pb.ListStatesRequest(page_size=1001), "page_size"),
        ("ListStates", lambda _: pb.ListStatesRequest(page_token="x"), "page_token"),
        ("ImportState", lambda _: iter([]), "data"),
    ],
)
async def test_a_value_out_of_its_range_is_named(
    wire: Wire, method: str, request_of: Any, field: str
) -> None:
    name = (await created(wire, NAMES[0])).name

    with pytest.raises(grpc.aio.AioRpcError, match=field) as caught:
        await getattr(wire.states, method)(request_of(name))

    assert caught.value.code() is CODE.INVALID_ARGUMENT


async def test_a_position_that_is_not_kept_is_out_of_range(wire: Wire) -> None:
    state = await created(wire, "models/gru-char", "abc")

    call = wire.states.ForkState(pb.ForkStateRequest(name=state.name, position=2))

    assert (await refusal(call))[:2] == (CODE.OUT_OF_RANGE, "POSITION_NOT_KEPT")


async def test_a_state_does_not_survive_its_model(wire: Wire) -> None:
    state = await created(wire, "models/gru-char", "abc")
    old = wire.models.take("models/gru-char")
    assert (await refusal(advanced(wire, state, "a")))[:2] == (CODE.NOT_FOUND, "MODEL_NOT_FOUND")

    wire.models.put(replace(wire.models.get("models/lstm-char"), name=old.name))

    expected = (CODE.FAILED_PRECONDITION, "STATE_MODEL_MISMATCH")
    assert (await refusal(advanced(wire, state, "a")))[:2] == expected
    wire.models.put(old)
    assert (await advanced(wire, state, "a")).state.num_tokens == 4
