"""Calls without a port: every kind of RPC, refusals, metadata, deadlines and cancellation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from charlm.v1 import codec_pb2, scoring_pb2, state_pb2
from charlm.v1 import generation_pb2 as gen
from charlm_server.app import App, interceptors_of
from charlm_server.config.limits import Limits
from charlm_server.config.settings import ServeConfig
from charlm_server.models.registry import Models
from charlm_server.rpc.in_process import CallContext, InProcessServer
from tests.server.rpc.test_security import write_tokens
from tests.server.wire import load

MODEL = "models/lstm-char"
GENERATE = "/charlm.v1.GenerationService/Generate"
STREAM_GENERATE = "/charlm.v1.GenerationService/StreamGenerate"
METHOD = "/numbers.Numbers/Count"
SCORE = "/charlm.v1.ScoringService/Score"
SCORE_REQUEST = scoring_pb2.ScoreRequest(model=MODEL, items=[scoring_pb2.ScoreItem(text="once")])


@asynccontextmanager
async def running(
    tokens: Path | None = None, limits: Limits | None = None
) -> AsyncIterator[tuple[InProcessServer, App]]:
    limits = limits or Limits()
    config = ServeConfig(checkpoints={}, threads=1, tokens=tokens, limits=limits)
    server = InProcessServer(interceptors_of(config))
    app = App(config, Models(load(("lstm", "char"), limits=limits)), server)
    app.begin()
    try:
        yield server, app
    finally:
        await app.drain(grace_s=0.0)


@pytest.fixture
async def server() -> AsyncIterator[InProcessServer]:
    async with running() as (server, _):
        yield server


def request_of(max_new_tokens: int) -> gen.GenerateRequest:
    stopping = {"max_new_tokens": max_new_tokens, "ignore_end_of_text": True}
    return gen.GenerateRequest(model=MODEL, stopping=stopping)


def stream_of(max_new_tokens: int) -> gen.StreamGenerateRequest:
    return gen.StreamGenerateRequest(generate=request_of(max_new_tokens), max_chunk_tokens=1)


async def each_of(*requests: Any) -> AsyncIterator[Any]:
    for request in requests:
        yield request


async def all_from(server: InProcessServer, method: str, request: Any) -> list[Any]:
    return [each async for each in server.stream(method, request, CallContext())]


def serving_one(handler: Any) -> InProcessServer:
    server = InProcessServer()
    service, method = METHOD[1:].split("/")
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {method: handler})]
    )
    return server


async def count(_request: Any, _context: Any) -> AsyncIterator[int]:
    for number in range(10):
        yield number


# --- every kind of RPC ---


async def test_one_request_gets_one_response(server: InProcessServer) -> None:
    response = await server.unary(GENERATE, request_of(7), CallContext())

    assert response.outputs[0].end.num_new_tokens == 7


async def test_one_request_gets_many_responses(server: InProcessServer) -> None:
    responses = await all_from(server, STREAM_GENERATE, stream_of(7))

    assert len(responses) >= 7
    assert responses[-1].chunks[-1].end.num_new_tokens == 7


async def test_many_requests_get_one_response(server: InProcessServer) -> None:
    create = state_pb2.CreateStateRequest(model=MODEL, context={"text": "once upon"})
    created = await server.unary("/charlm.v1.StateService/CreateState", create, CallContext())
    export = state_pb2.ExportStateRequest(name=created.state.name)
    exported = await all_from(server, "/charlm.v1.StateService/ExportState", export)
    pieces = [state_pb2.ImportStateRequest(data=each.data) for each in exported]

    response = await server.unary(
        "/charlm.v1.StateService/ImportState", each_of(*pieces), CallContext()
    )

    assert response.state.num_tokens == len("once upon")


async def test_many_requests_get_many_responses(server: InProcessServer) -> None:
    text = b"once upon a time"
    compress = each_of(
        codec_pb2.CompressRequest(model=MODEL, data=text[:5]),
        codec_pb2.CompressRequest(data=text[5:]),
    )
    compressed = await all_from(server, "/charlm.v1.CodecService/Compress", compress)
    form = b"".join(each.data for each in compressed)
    decompress = each_of(codec_pb2.DecompressRequest(model=MODEL, data=form))

    restored = await all_from(server, "/charlm.v1.CodecService/Decompress", decompress)

    assert b"".join(each.data for each in restored) == text


# --- errors and metadata ---


async def test_an_error_has_its_status_with_details(server: InProcessServer) -> None:
    request = gen.GenerateRequest(model="models/none")

    with pytest.raises(grpc.aio.AioRpcError) as unary:
        await server.unary(GENERATE, request, CallContext())
    with pytest.raises(grpc.aio.AioRpcError) as stream:
        await all_from(server, STREAM_GENERATE, gen.StreamGenerateRequest(generate=request))

    for error in (unary.value, stream.value):
        status: Any = rpc_status.from_call(error)  # type: ignore[arg-type] # it has what is read
        info = error_details_pb2.ErrorInfo()
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert status.message == error.details()
        assert status.details[0].Unpack(info)
        assert info.reason == "MODEL_NOT_FOUND"


async def test_a_method_that_does_not_exist_is_unimplemented(server: InProcessServer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.unary("/charlm.v1.ScoringService/Guess", SCORE_REQUEST, CallContext())

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_metadata_reach_the_interceptors_and_come_back(
    server: InProcessServer, tmp_path: Path
) -> None:
    context = CallContext(metadata=[("x-request-id", "seven")])

    await server.unary(SCORE, SCORE_REQUEST, context)

    assert dict(context.trailing_metadata())["x-request-id"] == "seven"
    assert context.code() is grpc.StatusCode.OK


async def test_an_interceptor_refuses_a_call_without_a_token(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.toml", scorer='roles = ["score"]')
    bearer = [("authorization", f"Bearer {'scorer'[::-1]}")]
    async with running(tokens) as (server, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.unary(SCORE, SCORE_REQUEST, CallContext())
        response = await server.unary(SCORE, SCORE_REQUEST, CallContext(bearer))

    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert response.scores[0].num_tokens == len("once")


# --- how calls end ---


async def test_a_call_counts_as_open_until_it_ends_and_no_longer() -> None:
    async with running(limits=Limits(max_open_calls=1)) as (server, _):
        async with aclosing(server.stream(STREAM_GENERATE, stream_of(100_000), CallContext())) as s:
            await anext(s)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await server.unary(SCORE, SCORE_REQUEST, CallContext())
        for _ in range(3):
            await server.unary(SCORE, SCORE_REQUEST, CallContext())

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_deadline_cancels_a_unary_call() -> None:
    has_ended = asyncio.Event()

    async def wait(_request: Any, _context: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            has_ended.set()

    server = serving_one(grpc.unary_unary_rpc_method_handler(wait))
    context = CallContext(timeout_s=0.05)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.unary(METHOD, None, context)

    assert caught.value.code() is context.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert context.time_remaining() == 0
    assert has_ended.is_set()


async def test_a_deadline_ends_a_stream_that_nobody_reads() -> None:
    server = serving_one(grpc.unary_stream_rpc_method_handler(count))
    stream = server.stream(METHOD, None, CallContext(timeout_s=0.05))
    await anext(stream)
    await asyncio.sleep(0.1)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [number async for number in stream]

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_cancelling_a_unary_call_frees_its_row() -> None:
    async with running() as (server, app):
        task = asyncio.create_task(server.unary(GENERATE, request_of(100_000), CallContext()))
        await server.unary(SCORE, SCORE_REQUEST, CallContext())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.unary(GENERATE, request_of(1), CallContext())  # the engine has come round

        assert [model.scheduler.load.num_running for model in app._models] == [0]


async def test_closing_a_stream_frees_its_row() -> None:
    async with running() as (server, app):
        async with aclosing(server.stream(STREAM_GENERATE, stream_of(100_000), CallContext())) as s:
            await anext(s)
        await server.unary(GENERATE, request_of(1), CallContext())

        assert [model.scheduler.load.num_running for model in app._models] == [0]


async def test_a_servicer_runs_one_response_ahead_of_its_reader() -> None:
    given: list[int] = []

    async def noted(request: Any, context: Any) -> AsyncIterator[int]:
        async for number in count(request, context):
            given.append(number)
            yield number

    server = serving_one(grpc.unary_stream_rpc_method_handler(noted))
    async with aclosing(server.stream(METHOD, None, CallContext())) as numbers:
        assert await anext(numbers) == 0
        for _ in range(5):
            await asyncio.sleep(0)

        assert len(given) <= 3  # one read, one ready, one that waits for its place
        assert [number async for number in numbers] == list(range(1, 10))


async def test_a_server_that_stopped_takes_no_call() -> None:
    server = InProcessServer()
    await server.stop(None)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.unary(SCORE, SCORE_REQUEST, CallContext())

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_stopping_cancels_what_is_open_after_the_grace() -> None:
    async with running() as (server, _):
        stream = server.stream(STREAM_GENERATE, stream_of(100_000), CallContext())
        await anext(stream)
        await server.stop(0.0)

        with pytest.raises(asyncio.CancelledError):
            async for _ in stream:
                pass
