"""What a stock client meets: models, health that watches, reflection, and honest refusals."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from charlm.v1 import generation_pb2 as gen
from charlm.v1 import models_pb2, sampling_pb2
from charlm_server.app import App
from charlm_server.config.settings import ServeConfig
from charlm_server.errors import base
from charlm_server.errors.base import CharlmError
from charlm_server.models.registry import Models
from charlm_server.rpc.disabled_services import OPTIONAL_SERVICES
from charlm_server.rpc.error_interceptor import STATUS_OF, status_from
from tests.server.wire import Wire, details_of, load, serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving(("lstm", "char"), ("gru", "byte")) as running:
        yield running


async def test_get_model_describes_the_model_and_its_limits(wire: Wire) -> None:
    answer = await wire.model_service.GetModel(models_pb2.GetModelRequest(name="models/lstm-char"))

    model = answer.model
    assert model.family == models_pb2.MODEL_FAMILY_LSTM
    assert model.vocab_size == 31
    assert model.state_size_bytes == 2 * 16 * 4 + 4 * 31  # with the distribution after it
    assert model.limits.max_response_message_bytes == 1 << 20
    assert model.default_sampling.temperature == 1.0
    assert model.default_sampling.HasField("top_k")
    assert model.numerics.is_batch_invariant
    assert model.numerics.id.startswith("charlm-")


async def test_the_advertised_defaults_are_what_unset_means(wire: Wire) -> None:
    answer = await wire.model_service.GetModel(models_pb2.GetModelRequest(name="models/lstm-char"))
    spelled_out = answer.model.default_sampling
    spelled_out.seed = 5
    unset = sampling_pb2.SamplingParams(seed=5)

    first, second = [
        await wire.generation.Generate(gen.GenerateRequest(model="models/lstm-char", sampling=each))
        for each in (unset, spelled_out)
    ]

    assert first.outputs == second.outputs


async def test_models_are_listed_page_by_page(wire: Wire) -> None:
    request = models_pb2.ListModelsRequest(page_size=1)
    first = await wire.model_service.ListModels(request)
    request.page_token = first.next_page_token
    second = await wire.model_service.ListModels(request)

    assert [model.name for model in first.models] == ["models/gru-byte"]
    assert [model.name for model in second.models] == ["models/lstm-char"]
    assert second.next_page_token == ""


@pytest.mark.parametrize("service", ["", "charlm.v1.GenerationService", "models/lstm-char"])
async def test_the_server_each_service_and_each_model_are_healthy(wire: Wire, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(wire.channel)

    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))

    assert answer.status == SERVING


async def test_a_watcher_receives_every_change(wire: Wire) -> None:
    stub = health_pb2_grpc.HealthStub(wire.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="models/lstm-char"))
    first = await watch.read()
    wire.app.health.set("models/gru-byte", is_serving=False)  # not what is watched
    wire.app.health.set("models/lstm-char", is_serving=False)
    second = await watch.read()
    wire.app.health.set("models/lstm-char", is_serving=True)
    third = await watch.read()

    assert [first.status, second.status, third.status] == [SERVING, NOT_SERVING, SERVING]


async def test_an_unknown_service_may_be_watched_but_not_checked(wire: Wire) -> None:
    stub = health_pb2_grpc.HealthStub(wire.channel)
    request = health_pb2.HealthCheckRequest(service="nobody")

    assert (await stub.Watch(request).read()).status == SERVICE_UNKNOWN
    with pytest.raises(grpc.aio.AioRpcError, match="nobody") as refusal:
        await stub.Check(request)
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("package", ["grpc.reflection.v1", "grpc.reflection.v1alpha"])
async def test_reflection_finds_every_service(wire: Wire, package: str) -> None:
    listed = await reflect(wire, package, reflection_pb2.ServerReflectionRequest(list_services=""))
    names = [service.name for service in listed.list_services_response.service]

    ours, standard = "charlm.v1.GenerationService", "grpc.health.v1.Health"
    assert {ours, standard, f"{package}.ServerReflection"} <= set(names)
    for name in names:
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)
        found = await reflect(wire, package, request)
        assert found.file_descriptor_response.file_descriptor_proto, name


async def test_reflection_can_be_turned_off() -> None:
    models = Models(load(("lstm", "char")))
    app = App(ServeConfig(checkpoints={}, port=0, reflection=False), models)
    async with grpc.aio.insecure_channel(await app.start()) as channel:
        wire = Wire("", channel, models, app)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await reflect(wire, "grpc.reflection.v1", request)
        await app.drain(0.0)

    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def reflect(wire: Wire, package: str, request: reflection_pb2.ServerReflectionRequest) -> Any:
    call = wire.channel.stream_stream(
        f"/{package}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()
    await call.write(request)
    await call.done_writing()
    return await call.read()


UNOFFERED_METHODS = [
    pytest.param(method, id=method.full_name)
    for service in OPTIONAL_SERVICES
    for method in service.methods
]


@pytest.mark.parametrize("method", UNOFFERED_METHODS)
async def test_what_is_not_offered_says_so_in_a_sentence(wire: Wire, method: Any) -> None:
    path = f"/{method.containing_service.full_name}/{method.name}"
    call = wire.channel.stream_stream(path)()
    await call.write(b"")
    await call.done_writing()

    with pytest.raises(
        grpc.aio.AioRpcError, match=f"{method.name} is not supported.*--admin"
    ) as refusal:
        await call.read()

    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
    info: Any = details_of(refusal.value)["ErrorInfo"]
    assert info.reason == "NOT_OFFERED"


@pytest.mark.slow
async def test_a_drained_server_ends_calls_with_partial_results(wire: Wire) -> None:
    endless = gen.GenerateRequest(
        model="models/lstm-char",
        stopping={"max_new_tokens": 1_000_000, "ignore_end_of_text": True},
    )
    call = wire.generation.StreamGenerate(gen.StreamGenerateRequest(generate=endless))
    watch = health_pb2_grpc.HealthStub(wire.channel).Watch(health_pb2.HealthCheckRequest())
    streamed = aiter(call)
    await anext(streamed)
    await watch.read()

    draining = asyncio.create_task(wire.app.drain(grace_s=0.0))
    status = await watch.read()
    responses = [response async for response in streamed]
    await draining

    assert status.status == NOT_SERVING
    assert responses[-1].chunks[-1].end.finish_reason == gen.FINISH_REASON_DRAINED


def test_every_error_has_a_status() -> None:
    assert set(STATUS_OF) == set(CharlmError.__subclasses__())


def test_every_error_has_a_reason_of_its_own() -> None:
    classes = [value for value in vars(base).values() if isinstance(value, type)]
    reasons = [each.reason for each in classes if issubclass(each, CharlmError)]

    # InvalidText and ResumeMismatch are given theirs at each place.
    assert len(set(reasons)) >= len(reasons) - 2


def test_the_text_of_an_internal_error_is_not_sent() -> None:
    status = status_from(RuntimeError("secret path"))

    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert "secret" not in status.message


@pytest.mark.parametrize("method", ["GenerationService/Generate", "CodecService/Compress"])
async def test_a_request_that_is_no_message_is_the_callers_mistake(wire: Wire, method: str) -> None:
    async def requests() -> AsyncIterator[bytes]:
        yield b"\x0a\xff"

    path = f"/charlm.v1.{method}"
    if method.startswith("Codec"):
        answer = wire.channel.stream_stream(path)(requests()).read()
    else:
        answer = wire.channel.unary_unary(path)(b"\x0a\xff")
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await answer

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
