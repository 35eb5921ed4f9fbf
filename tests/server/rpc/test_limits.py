"""Every bound is one flag, one field of GetModel's answer, and refused early with what helps."""

import asyncio
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import grpc
import pytest
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from charlm.v1 import generation_pb2 as gen
from charlm.v1 import models_pb2, models_pb2_grpc, sampling_pb2
from charlm_server.cli import serve
from charlm_server.config.limit_flags import parameter_name
from charlm_server.config.limits import Limits
from charlm_server.errors.base import ServeError
from charlm_server.rpc.convert.models import limits_from
from tests.server.wire import OWN_CONNECTION, Wire, details_of, serving

MODEL = "models/lstm-char"
ENDLESS = gen.StreamGenerateRequest(
    generate=gen.GenerateRequest(
        model=MODEL, stopping={"max_new_tokens": 1_000_000, "ignore_end_of_text": True}
    )
)
GET = models_pb2.GetModelRequest(name=MODEL)
DOCUMENT = Path(__file__).parents[3] / "docs" / "operations.md"
CLIENT = """
import sys, grpc
from charlm.v1 import generation_pb2 as gen, generation_pb2_grpc
request = gen.StreamGenerateRequest.FromString(bytes.fromhex(sys.argv[2]))
with grpc.insecure_channel(sys.argv[1]) as channel:
    for response in generation_pb2_grpc.GenerationServiceStub(channel).StreamGenerate(request):
        print("read", flush=True)
"""


def test_get_model_returns_every_limit_under_its_own_name() -> None:
    told = {field.name for field in models_pb2.Limits.DESCRIPTOR.fields}
    own = {parameter_name(limit) for limit in fields(Limits)} - {"caller_share"}

    assert own == {name for name in told if not name.endswith("_per_caller")}


def test_limits_from_converts_shares_and_durations() -> None:
    told = limits_from(Limits(max_states=10, caller_share=0.25, keep_alive_s=1.5))

    assert (told.max_states, told.max_states_per_caller) == (10, 2)
    assert told.keep_alive.ToMilliseconds() == 1500
    assert told.max_constraint_states == Limits().max_constraint_states


def test_every_limit_has_a_flag_and_a_line_in_the_manual() -> None:
    app = typer.Typer()
    app.command()(serve)
    parameters = {each.name: each for each in typer.main.get_command(app).params}
    manual = DOCUMENT.read_text()

    for limit in fields(Limits):
        flag = parameters[parameter_name(limit)]
        assert flag.default == limit.default
        assert f"| `{flag.opts[0]}` | `{flag.envvar}` |" in manual


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ServeError, match="--state-time-to-live is 9 s; it must be at most"):
        Limits(state_time_to_live_s=9, max_state_time_to_live_s=8)


async def refusal_of(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call  # type: ignore[misc]
    return refusal.value


async def test_open_calls_are_bounded_and_health_is_not_counted() -> None:
    async with serving(("lstm", "char"), limits=Limits(max_open_calls=1)) as wire:
        stream = wire.generation.StreamGenerate(ENDLESS)
        await anext(aiter(stream))
        error = await refusal_of(wire.model_service.GetModel(GET))
        healthy = await health_pb2_grpc.HealthStub(wire.channel).Check(
            health_pb2.HealthCheckRequest()
        )
        stream.cancel()

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert {"RetryInfo", "ErrorInfo"} <= details_of(error).keys()
    assert healthy.status == health_pb2.HealthCheckResponse.SERVING


async def test_open_watches_are_bounded_apart_from_calls() -> None:
    async with serving(("lstm", "char"), limits=Limits(max_open_calls=1)) as wire:
        health, asked = health_pb2_grpc.HealthStub(wire.channel), health_pb2.HealthCheckRequest()
        watch = health.Watch(asked)
        await watch.read()
        error = await refusal_of(health.Watch(asked).read())
        await health.Check(asked)
        await wire.model_service.GetModel(GET)
        watch.cancel()

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_call_is_refused_before_its_request_is_read() -> None:
    """The request is never sent; a server that waited for it would never answer."""
    async with serving(("lstm", "char"), limits=Limits(max_open_calls=1)) as wire:
        stream = wire.generation.StreamGenerate(ENDLESS)
        await anext(aiter(stream))
        method = "/charlm.v1.ModelService/GetModel"
        call = wire.channel.stream_unary(method)()
        error = await refusal_of(asyncio.wait_for(call, 30))
        stream.cancel()

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_streams_of_one_connection_are_bounded() -> None:
    """A further one waits at the client until there is a place; other connections are free."""
    async with serving(("lstm", "char"), limits=Limits(max_streams_per_connection=1)) as wire:
        stream = wire.generation.StreamGenerate(ENDLESS)
        await anext(aiter(stream))
        waiting = asyncio.ensure_future(wire.model_service.GetModel(GET))
        async with own_channel(wire) as other:
            await models_pb2_grpc.ModelServiceStub(other).GetModel(GET)
        assert not waiting.done()
        stream.cancel()
        await waiting


def own_channel(wire: Wire) -> grpc.aio.Channel:
    """A connection of its own."""
    return grpc.aio.insecure_channel(wire.address, options=OWN_CONNECTION)


async def test_connections_are_bounded() -> None:
    async with serving(("lstm", "char"), limits=Limits(max_connections=1)) as wire:
        await wire.model_service.GetModel(GET)
        async with own_channel(wire) as other:
            error = await refusal_of(models_pb2_grpc.ModelServiceStub(other).GetModel(GET))

    assert error.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.slow
async def test_an_old_connection_gets_goaway_and_its_calls_finish() -> None:
    async with serving(("lstm", "char"), limits=Limits(max_connection_age_s=0.2)) as wire:
        stream = aiter(wire.generation.StreamGenerate(ENDLESS))
        await anext(stream)
        await wire.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        answer = await wire.model_service.GetModel(GET)
        further = await anext(stream)

    assert answer.model.limits.max_connection_age.ToMilliseconds() == 200
    assert further.chunks


@pytest.mark.slow
async def test_a_client_that_vanished_frees_its_row() -> None:
    """The client process is stopped (SIGSTOP): its sockets stay open, but it sends nothing."""
    limits = Limits(keep_alive_s=1, keep_alive_timeout_s=1)
    async with serving(("lstm", "char"), limits=limits) as wire:
        message = ENDLESS.SerializeToString().hex()
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, wire.address, message, stdout=subprocess.PIPE
        )
        try:
            assert client.stdout is not None
            await client.stdout.readline()
            client.send_signal(signal.SIGSTOP)
            await asyncio.wait_for(wire.models.get(MODEL).scheduler.nothing_open(), 30)
        finally:
            client.kill()
            await client.communicate()


@pytest.mark.parametrize(
    ("limits", "regex", "told"),
    [
        (Limits(max_constraint_bytes=10), "[a-z]{1,9}x", "at most 10 bytes"),
        (Limits(max_constraint_states=5), "[a-z]{9}", "at most 5 states"),
    ],
)
async def test_constraints_are_bounded(limits: Limits, regex: str, told: str) -> None:
    constraint = sampling_pb2.Constraint(regex=regex)
    async with serving(("lstm", "char"), limits=limits) as wire:
        call = wire.generation.Generate(gen.GenerateRequest(model=MODEL, constraint=constraint))
        error = await refusal_of(call)

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert told in str(error.details())
