"""A streamed text has the very bits that Score gives, however it is cut, in bounded memory."""

import asyncio
import math
import resource
from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from itertools import pairwise
from typing import Any

import grpc
import pytest

from charlm.v1 import context_pb2
from charlm.v1 import scoring_pb2 as pb
from charlm_server.calls.call import Call
from charlm_server.config.limits import Limits
from charlm_server.engine.search import PrefixState, SearchJob
from charlm_server.errors.overload import QueueFull
from charlm_server.rpc.convert.long_text import scorer_from
from charlm_server.tasks.long_text_scoring import MAX_BLOCK
from charlm_server.tasks.search_series import SearchSeries
from tests.server.wire import TEXT, Wire, details_of, serving

KINDS = [
    ("ngram", "byte"),
    ("rnn", "byte"),
    ("gru", "sentencepiece"),
    ("lstm", "char"),
    ("transformer", "byte"),
]
LATIN = "the quick brown fox, jumps over.\n"
EVERYTHING = {"ranks": True, "entropies": True, "top_k": 3, "distributions": True}


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving(*KINDS) as running:
        yield running


def text_for(kind: str) -> str:
    return (LATIN if kind == "char" else TEXT[: len(TEXT) // 40]) * 3


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def opening(model: str, **start: Any) -> pb.StreamScoreRequest:
    return pb.StreamScoreRequest(start=pb.StreamScoreStart(model=f"models/{model}", **start))


async def streamed(
    wire: Wire, model: str, parts: Iterable[bytes], **start: Any
) -> list[pb.StreamScoreResponse]:
    async def requests() -> AsyncIterator[pb.StreamScoreRequest]:
        yield opening(model, **start)
        for part in parts:
            yield pb.StreamScoreRequest(data=part)

    return [response async for response in wire.scoring.StreamScore(requests())]


async def scored(wire: Wire, model: str, text: str, **options: Any) -> pb.Score:
    context = options.pop("context", context_pb2.Context())
    items = [pb.ScoreItem(context=context, text=text)]
    request = pb.ScoreRequest(model=f"models/{model}", items=items, **options)
    return (await wire.scoring.Score(request)).scores[0]


def joined(responses: list[pb.StreamScoreResponse]) -> pb.Score:
    """All responses as one score, as Score would give it."""
    score = responses[-1].total
    for response in responses[:-1]:
        assert response.tokens.first_position == len(score.tokens.token_ids)
        assert not response.HasField("total")
        assert not response.model_digest
        score.tokens.MergeFrom(response.tokens)
    score.tokens.first_position = 0
    return score


@pytest.mark.parametrize(("family", "kind"), KINDS)
async def test_a_stream_cut_anywhere_has_the_bits_of_score(
    wire: Wire, family: str, kind: str
) -> None:
    model, text = f"{family}-{kind}", text_for(kind)
    expected = await scored(wire, model, text)

    for cuts in ([], [1, 1, 2, 50], range(0, len(text.encode()), 3)):
        found = joined(await streamed(wire, model, pieces(text.encode(), cuts)))
        assert found == expected


async def test_tokens_are_scored_one_by_one_after_a_context(wire: Wire) -> None:
    asked = {"returns": EVERYTHING, "context": context_pb2.Context(text="the ")}

    responses = await streamed(wire, "lstm-char", pieces(LATIN.encode(), [9]), **asked)
    expected = await scored(wire, "lstm-char", LATIN, **asked)

    tokens = [response.tokens for response in responses[:-1]]
    for name in ("token_ids", "character_offsets", "logprobs", "ranks", "entropies"):
        column = [value for part in tokens for value in getattr(part, name)]
        assert column == list(getattr(expected.tokens, name))
    data = b"".join(part.distributions.data for part in tokens)
    assert data == expected.tokens.distributions.data
    best = [value for part in tokens for value in part.top_tokens.token_ids]
    assert best == list(expected.tokens.top_tokens.token_ids)


async def test_without_tokens_only_totals_are_returned(wire: Wire) -> None:
    parts = pieces(LATIN.encode() * 10, [7, 70])

    (last,) = await streamed(wire, "lstm-char", parts, returns={"logprobs": False})

    expected = await scored(wire, "lstm-char", LATIN * 10, returns={"logprobs": False})
    assert last.total == expected
    assert last.model_digest == wire.models.digest("models/lstm-char")
    assert last.numerics.id


async def test_a_large_piece_comes_back_in_messages_of_bounded_size(wire: Wire) -> None:
    text = b"x" * (2 * MAX_BLOCK + 1)

    responses = await streamed(wire, "ngram-byte", [text])

    assert [len(each.tokens.token_ids) for each in responses] == [MAX_BLOCK, MAX_BLOCK, 1, 0]


async def test_dense_answers_are_cut_to_fit_a_message() -> None:
    async with serving(("lstm", "char"), limits=Limits(max_response_message_bytes=2000)) as wire:
        responses = await streamed(
            wire, "lstm-char", [LATIN.encode()], returns={"distributions": True}
        )

    assert sum(len(each.tokens.token_ids) for each in responses) == len(LATIN)
    assert max(each.ByteSize() for each in responses) <= 2000


async def test_an_empty_text_costs_nothing(wire: Wire) -> None:
    (last,) = await streamed(wire, "gru-sentencepiece", [])

    assert (last.total.num_tokens, last.total.total_logprob) == (0, 0.0)
    assert last.total.bits_per_byte == 0.0


async def test_input_is_not_read_faster_than_it_is_scored(wire: Wire) -> None:
    num_read = 0

    async def text() -> AsyncIterator[bytes]:
        nonlocal num_read
        for _ in range(100):
            num_read += 1
            yield b"x" * 100

    model = wire.models.get("models/rnn-byte")
    scorer, encode, _ = scorer_from(
        pb.StreamScoreStart(), SearchSeries(model, math.inf), states=wire.app.states.of("")
    )
    async with aclosing(scorer.run(text(), encode)) as blocks:
        for number in range(1, 6):
            await anext(blocks)
            assert num_read == number


async def test_a_cancelled_stream_leaves_the_engine(wire: Wire) -> None:
    call = wire.scoring.StreamScore()
    await call.write(opening("rnn-byte"))
    await call.write(pb.StreamScoreRequest(data=b"x" * 1_000_000))
    await call.read()

    call.cancel()

    async with asyncio.timeout(10):
        await wire.models.get("models/rnn-byte").scheduler.nothing_open()


@pytest.mark.slow
async def test_a_stream_ends_at_its_deadline_and_leaves_the_engine(wire: Wire) -> None:
    call = wire.scoring.StreamScore(timeout=0.2)
    await call.write(opening("rnn-byte"))
    await call.write(pb.StreamScoreRequest(data=b"x" * 10_000_000))

    with pytest.raises(grpc.aio.AioRpcError) as late:
        async for _ in call:
            pass

    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(10):
        await wire.models.get("models/rnn-byte").scheduler.nothing_open()


async def test_many_streams_at_once_have_the_bits_of_each_alone(wire: Wire) -> None:
    """Two models, seven streams each, in pieces of other lengths."""
    models = ["rnn-byte", "transformer-byte"]
    text = text_for("byte")
    alone = {model: await scored(wire, model, text) for model in models}

    async def stream(model: str, step: int) -> pb.Score:
        parts = pieces(text.encode(), range(0, len(text.encode()), step))
        return joined(await streamed(wire, model, parts))

    names = models * 7
    together = await asyncio.gather(
        *(stream(model, 20 + number) for number, model in enumerate(names))
    )

    assert together == [alone[model] for model in names]


async def test_a_full_queue_refuses_new_calls_but_not_started_ones(wire: Wire) -> None:
    model = wire.models.get("models/rnn-byte")
    series = SearchSeries(model, math.inf)
    full = QueueFull("requests", 0, retry_after_s=0.0)
    admit = model.scheduler.run
    refusals = 0

    def refuse_at_first(job: SearchJob, call: Call | None) -> AbstractAsyncContextManager[None]:
        nonlocal refusals
        refusals += 1
        if refusals <= 3:
            raise full
        return admit(job, call)

    def answer(_: PrefixState) -> Generator[None, None, str]:
        yield
        return "done"

    assert await series.ask(answer, num_steps=1) == "done"
    model.scheduler.run = refuse_at_first  # type: ignore[method-assign]

    assert await series.ask(answer, num_steps=1) == "done"
    refusals = 0
    with pytest.raises(QueueFull):
        await SearchSeries(model, math.inf).ask(answer, num_steps=1)


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([], "start"),
        ([pb.StreamScoreRequest(data=b"a")], "start"),
        ([opening("lstm-char"), opening("lstm-char")], "start"),
        ([opening("lstm-char", context={"text": "\u1234"})], "start.context.text"),
        ([opening("lstm-char", returns={"top_k": 999})], "returns.top_k"),
        ([opening("lstm-char"), pb.StreamScoreRequest(data="a\u1234".encode())], "data"),
        ([opening("lstm-char"), pb.StreamScoreRequest(data=b"a\xff")], "data"),
        ([opening("lstm-char"), pb.StreamScoreRequest(data="\u1234".encode()[:1])], "data"),
    ],
)
async def test_bad_streams_are_refused_with_their_field(
    wire: Wire, requests: list[pb.StreamScoreRequest], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        _ = [response async for response in wire.scoring.StreamScore(requests)]

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    bad_request: Any = details_of(refusal.value)["BadRequest"]
    assert bad_request.field_violations[0].field == field


async def test_the_offset_of_an_unknown_character_counts_from_the_start(wire: Wire) -> None:
    parts = [b"hello", b" ", "w\u1234".encode()]

    with pytest.raises(grpc.aio.AioRpcError, match="at offset 7") as refusal:
        await streamed(wire, "lstm-char", parts)

    info: Any = details_of(refusal.value)["ErrorInfo"]
    assert (info.reason, info.metadata["offset"]) == ("UNKNOWN_CHARACTER", "7")


async def test_an_unknown_character_may_be_replaced(wire: Wire) -> None:
    policy = context_pb2.UNKNOWN_CHARACTER_POLICY_REPLACE

    responses = await streamed(
        wire, "lstm-char", pieces("a\u1234b".encode(), [2]), unknown_characters=policy
    )

    found = joined(responses)
    expected = await scored(wire, "lstm-char", "a\u1234b", unknown_characters=policy)
    assert found == expected
    assert found.tokens == (await scored(wire, "lstm-char", "a b")).tokens
    assert found.num_bytes == 5


@pytest.mark.slow
async def test_memory_does_not_grow_with_the_text() -> None:
    """Kept ids and scores of three megabytes would be some sixty."""
    piece, num_pieces = (LATIN * 1000).encode(), 90
    peaks = []

    def text() -> Iterator[bytes]:
        for _ in range(num_pieces):
            yield piece
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

    async with serving(("ngram", "char")) as wire:
        responses = await streamed(wire, "ngram-char", text(), returns={"logprobs": False})

    assert responses[-1].total.num_tokens == len(piece) * num_pieces
    assert peaks[-1] - peaks[num_pieces // 6] < 20 << 20
