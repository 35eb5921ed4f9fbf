"""Replicas without Ray: calls by method have the same responses as calls through a port."""

from __future__ import annotations  # the asynchronous stubs exist for type checkers only

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from charlm.v1 import generation_pb2 as gen
from charlm.v1 import sampling_pb2, scoring_pb2
from charlm_model import checkpoint
from charlm_server.cluster import proxy
from charlm_server.cluster.autoscaling import Autoscaling
from charlm_server.cluster.replica import METHODS, Refusal, Replica, ReplicaUnhealthy
from charlm_server.config.settings import ServeConfig
from charlm_server.errors.base import ServeError
from charlm_server.rpc.error_interceptor import STATUS_DETAILS
from tests.server.rpc.test_security import write_tokens
from tests.server.wire import checkpoint_of, data_of, serving, vocabulary_of

REQUEST = gen.GenerateRequest(
    model="models/lstm-char", sampling=sampling_pb2.SamplingParams(seed=5)
)
NO_MODEL = gen.GenerateRequest(model="models/none")


@dataclass
class Carried:
    """What Ray carries to a replica and back."""

    token: str = ""
    status: grpc.StatusCode | None = None
    details: str = ""
    trailing: dict[str, str | bytes] = field(default_factory=dict)

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        return [("authorization", f"Bearer {self.token}")] if self.token else []

    def peer(self) -> str:
        return "ipv4:127.0.0.1:50000"

    def set_code(self, code: grpc.StatusCode) -> None:
        self.status = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, metadata: list[tuple[str, str | bytes]]) -> None:
        assert isinstance(metadata, list)  # Ray adds it to one of its own
        self.trailing = dict(metadata)


@dataclass
class ProxyContext:
    """What gRPC gives Ray's proxy: codes come back as numbers."""

    status: int = 0
    details: str = ""
    trailing: tuple[tuple[str, bytes], ...] = ()

    def code(self) -> int:
        return self.status

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return self.trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        self.status = code.value[0]

    def set_details(self, details: str) -> None:
        self.details = details

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.set_code(code)
        self.set_details(details)
        raise grpc.aio.AbortError


@asynccontextmanager
async def replicating(folder: Path, tokens: Path | None = None) -> AsyncIterator[Any]:
    made = checkpoint_of("lstm", vocabulary_of("char"))
    checkpoint.save(folder / "lstm-char", made.model, made.vocabulary, {})
    named = {"models/lstm-char": folder / "lstm-char"}
    running: Any = Replica.__new__(Replica)
    await running.__init__(ServeConfig(checkpoints=named, threads=1, tokens=tokens))
    try:
        yield running
    finally:
        await running._app.drain(grace_s=0.0)


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[Any]:
    async with replicating(tmp_path) as running:
        yield running


async def test_a_replica_answers_as_a_server_with_a_port(replica: Any) -> None:
    async with serving(("lstm", "char")) as wire:
        told = await wire.generation.Generate(REQUEST)
        streamed = await wire.stream(REQUEST)

    answer = await replica.Generate(REQUEST, grpc_context=Carried())
    request = gen.StreamGenerateRequest(generate=REQUEST)
    answers = [each async for each in replica.StreamGenerate(request, grpc_context=Carried())]

    assert [output.tokens for output in answer.outputs] == [
        output.tokens for output in told.outputs
    ]
    assert data_of(answers) == data_of(streamed)


async def test_an_abandoned_stream_frees_its_row(replica: Any) -> None:
    long = gen.GenerateRequest(model="models/lstm-char")
    long.stopping.max_new_tokens = 1_000_000
    answers = replica.StreamGenerate(
        gen.StreamGenerateRequest(generate=long), grpc_context=Carried()
    )
    await anext(answers)
    await answers.aclose()
    await replica.Generate(REQUEST, grpc_context=Carried())  # the engine has come round

    (model,) = replica._app._models
    assert model.scheduler.load.num_running == 0


async def test_a_replica_reads_a_stream_of_requests(replica: Any) -> None:
    async def pieces() -> AsyncIterator[scoring_pb2.StreamScoreRequest]:
        start = scoring_pb2.StreamScoreStart(model="models/lstm-char")
        yield scoring_pb2.StreamScoreRequest(start=start, data=b"once ")
        yield scoring_pb2.StreamScoreRequest(data=b"upon a time")

    answers = [each async for each in replica.StreamScore(pieces(), grpc_context=Carried())]

    assert answers[-1].total.num_tokens == len("once upon a time")


async def test_a_refusal_goes_back_with_its_details(replica: Any) -> None:
    carried = Carried()

    answer = await replica.Generate(NO_MODEL, grpc_context=carried)

    assert answer == Refusal()
    assert answer.SerializeToString() == b""
    assert carried.status is grpc.StatusCode.NOT_FOUND
    assert "models/none" in carried.details
    assert b"ErrorInfo" in bytes(carried.trailing[STATUS_DETAILS])


async def test_a_refused_stream_goes_back_with_its_details(replica: Any) -> None:
    carried = Carried()
    request = gen.StreamGenerateRequest(generate=NO_MODEL)

    answers = [each async for each in replica.StreamGenerate(request, grpc_context=carried)]

    assert answers == [Refusal()]
    assert STATUS_DETAILS in carried.trailing


async def test_a_replica_asks_for_tokens_as_a_server_does(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.toml", scorer='roles = ["score"]')
    stranger, scorer = Carried(), Carried(token="scorer"[::-1])
    asked = scoring_pb2.ScoreRequest(
        model="models/lstm-char", items=[scoring_pb2.ScoreItem(text="once")]
    )

    async def in_a_task(carried: Carried) -> Any:
        return await asyncio.create_task(guarded.Score(asked, grpc_context=carried))

    async with replicating(tmp_path, tokens) as guarded:
        refused, answered = await in_a_task(stranger), await in_a_task(scorer)

    assert refused == Refusal()
    assert stranger.status is grpc.StatusCode.UNAUTHENTICATED
    assert answered.scores[0].num_tokens == len("once")


async def test_a_stuck_engine_is_reported_to_ray(replica: Any) -> None:
    replica.check_health()
    health = await replica.Check(health_pb2.HealthCheckRequest(), grpc_context=Carried())
    replica._app.health.set_all(is_serving=False)

    assert health.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(ReplicaUnhealthy):
        replica.check_health()


def test_every_rpc_is_a_method_as_ray_calls_it() -> None:
    names = [method.name for method in METHODS]

    assert len(set(names)) == len(names)
    for method in METHODS:
        function = getattr(Replica, method.name)
        assert list(inspect.signature(function).parameters) == ["self", "request", "grpc_context"]
        assert inspect.isasyncgenfunction(function) == method.server_streaming


# --- the proxy ---


def test_the_proxy_leads_every_method_to_a_replica_or_refuses_it() -> None:
    routed: list[str] = []

    def route(*, service_method: str, streaming_type: Any) -> None:
        routed.append(service_method)

    class Server:
        service_handler_factory = staticmethod(route)

        def add_generic_rpc_handlers(self, handlers: Any) -> None:
            for method, handler in handlers[0]._method_handlers.items():
                kind = "UNARY_STREAM" if handler.response_streaming else "UNARY_UNARY"
                self.service_handler_factory(
                    service_method=method, streaming_type=SimpleNamespace(name=kind)
                )

        def add_registered_method_handlers(self, *_: Any) -> None:
            pass

    servicer = SimpleNamespace(**{method.name: None for method in METHODS})
    proxy.add_services(servicer, Server())

    paths = {f"/{method.containing_service.full_name}/{method.name}" for method in METHODS}
    assert set(routed) == {path for path in paths if not path.startswith(tuple(proxy.REFUSED))}
    assert len(paths) - len(routed) == 13  # StateService's eight, AdminService's four, and Watch


@pytest.mark.parametrize(
    ("trailing", "code"),
    [((), grpc.StatusCode.UNAVAILABLE), (((STATUS_DETAILS, b""),), grpc.StatusCode.INTERNAL)],
)
async def test_a_crashed_replica_is_reported_as_unavailable_and_not_as_internal(
    trailing: tuple[tuple[str, bytes], ...], code: grpc.StatusCode
) -> None:
    async def failing(_request: Any, context: ProxyContext) -> bytes:
        context.status, context.trailing = grpc.StatusCode.INTERNAL.value[0], trailing
        return b""

    context = ProxyContext()
    await proxy.with_crash_reported(failing)(None, context)

    assert context.status == code.value[0]


async def test_the_message_that_carries_a_refusal_is_not_sent_on() -> None:
    async def refused(_request: Any, context: ProxyContext) -> AsyncIterator[bytes]:
        yield b"chunk"
        context.set_code(grpc.StatusCode.NOT_FOUND)
        yield b""

    sent = [each async for each in proxy.stream_with_crash_reported(refused)(None, ProxyContext())]

    assert sent == [b"chunk"]


async def test_the_proxy_says_why_it_refuses() -> None:
    unary, stream = ProxyContext(), ProxyContext()

    with pytest.raises(grpc.aio.AbortError):
        await proxy.unimplemented("Not here.")(None, unary)
    with pytest.raises(grpc.aio.AbortError):
        _ = [each async for each in proxy.unimplemented_stream("Not here.")(None, stream)]

    assert unary == stream == ProxyContext(grpc.StatusCode.UNIMPLEMENTED.value[0], "Not here.")


@pytest.mark.slow
def test_the_proxy_loads_no_tensors() -> None:
    program = "import charlm_server.cluster.proxy, sys; print('torch' in sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert loaded.stdout == "False\n"


# --- the command ---


@pytest.mark.parametrize(("least", "most"), [(0, 1), (3, 2)])
def test_no_range_of_replicas_is_empty(least: int, most: int) -> None:
    with pytest.raises(ServeError, match=f"--replicas is {least}:{most}"):
        Autoscaling(min_replicas=least, max_replicas=most)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--allow-insecure"),
        (["--allow-insecure", "--replicas", "many"], "--replicas is 'many'"),
        (["--allow-insecure", "--replicas", "3:2"], "--replicas is 3:2"),
    ],
)
def test_the_command_explains_what_it_refuses(flags: list[str], words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "charlm_client", "serve-ray", str(tmp_path), *flags]

    ended = subprocess.run(command, capture_output=True, text=True)

    assert ended.returncode == 1
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
