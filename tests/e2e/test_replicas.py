"""Three servers behind one client: calls are spread, and succeed when one server is killed."""

import asyncio
import signal
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from fake_dns import naming

from charlm.v1.models_pb2 import ListModelsResponse
from charlm_client import Client, GenerationStream, Sampling, Stopping
from tests.e2e.envoy import ENVOY, proxying
from tests.e2e.processes import STOP_TIMEOUT_S, Server, close, free_port, serving_on, whole

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
NUM_TOKENS = 40_000  # more than waits anywhere on the way: streams are in their middle for long
FLAGS = ["--admin", "--max-waiting-bytes", "4096"]
TIMEOUT_S = 300.0  # whatever else the machine does
MANY = 2_000  # calls, after which all have been asked, or never will be

pytestmark = pytest.mark.slow


@asynccontextmanager
async def one_address(kind: str, port: str) -> AsyncIterator[str]:
    """What stands for all hosts: their numbers, a name as a headless service has, or a proxy."""
    if kind == "numbers":
        yield ",".join(f"{host}:{port}" for host in HOSTS)
    elif kind == "name":
        async with naming(HOSTS) as name_server:
            yield f"dns://{name_server}/charlm.test:{port}"
    else:
        async with proxying(HOSTS, port) as address:
            yield address


WITH_ENVOY = pytest.mark.skipif(not ENVOY.exists(), reason="Envoy is not installed: make unit")


@pytest.fixture(scope="module")
def port() -> str:
    return free_port()


@pytest.fixture(scope="module")
def running(checkpoints: Path, port: str) -> Iterator[list[Server]]:
    with serving_on(checkpoints / "bytes", HOSTS, port, *FLAGS) as servers:
        yield servers


@pytest.fixture
def servers(running: list[Server], checkpoints: Path, port: str) -> list[Server]:
    """All three servers; one that was killed is started again."""
    for place, server in enumerate(running):
        if server.process.poll() is not None:
            close(server)
            where = ["--host", HOSTS[place], "--port", port]
            running[place] = Server(checkpoints / "bytes", *where, *FLAGS)
    assert all(server.address for server in running)
    return running


@pytest.mark.parametrize("kind", ["numbers", "name", pytest.param("envoy", marks=WITH_ENVOY)])
async def test_calls_succeed_when_a_replica_is_killed(
    servers: list[Server], port: str, kind: str
) -> None:
    async with one_address(kind, port) as address, Client(address, timeout_s=TIMEOUT_S) as client:
        await all_are_asked(client, servers)
        undisturbed = whole([chunk async for chunk in stream_of(client)])
        streams = [stream_of(client) for _ in HOSTS]  # each server has one
        readers = [aiter(stream) for stream in streams]
        received = [[await anext(reader)] for reader in readers]
        async with always_scoring(client):
            servers[1].kill()
            for reader, chunks in zip(readers, received, strict=True):
                chunks += [chunk async for chunk in reader]

    assert all(whole(chunks) == undisturbed for chunks in received)
    assert sum(stream.num_resumptions > 0 for stream in streams) == 1


async def test_a_stopping_replica_gets_no_new_calls(servers: list[Server], port: str) -> None:
    async with (
        one_address("numbers", port) as address,
        Client(address, timeout_s=TIMEOUT_S) as client,
    ):
        await all_are_asked(client, servers)
        stream = stream_of(client)
        async with always_scoring(client):
            servers[0].process.send_signal(signal.SIGTERM)
            chunks = [chunk async for chunk in stream]
            status = await asyncio.to_thread(servers[0].process.wait, STOP_TIMEOUT_S)

    assert status == 0
    assert len(whole(chunks)[1]) == NUM_TOKENS


@WITH_ENVOY
async def test_browsers_can_ask_through_envoy(server_address: str) -> None:
    """gRPC-Web: a frame of flags and length before the message, and the trailers as a last one."""
    host, port = server_address.split(":")
    async with proxying([host], port) as address:
        url = f"http://{address}/charlm.v1.ModelService/ListModels"
        headers = {"content-type": "application/grpc-web+proto"}
        request = Request(url, data=struct.pack("!BI", 0, 0), headers=headers)
        with await asyncio.to_thread(urlopen, request) as response:
            answer = response.read()

    flags, length = struct.unpack_from("!BI", answer)
    models = ListModelsResponse.FromString(answer[5 : 5 + length]).models
    assert flags == 0
    assert [model.name for model in models] == ["models/bytes", "models/fox"]
    assert b"grpc-status:0" in answer[5 + length :]


def stream_of(client: Client) -> GenerationStream:
    stopping = Stopping(max_new_tokens=NUM_TOKENS, ignore_end_of_text=True)
    return client.stream_generate(
        "once", model="bytes", sampling=Sampling(seed=3), stopping=stopping
    )


async def all_are_asked(client: Client, servers: Sequence[Server]) -> None:
    """Generate until every server has; they connect one after the other."""
    before = [await num_sampled(server) for server in servers]
    for _ in range(MANY):
        await client.generate("once", model="bytes", stopping=Stopping(max_new_tokens=1))
        after = [await num_sampled(server) for server in servers]
        if all(now > then for then, now in zip(before, after, strict=True)):
            return
    raise AssertionError("one of the servers was never asked")


async def num_sampled(server: Server) -> int:
    async with Client(server.address) as client:
        (load,) = await client.admin.loads()
    return load.num_sampled_tokens


@asynccontextmanager
async def always_scoring(client: Client) -> AsyncIterator[None]:
    """Scores in a loop meanwhile; no call may fail or differ."""
    (expected,) = await client.score(["once upon a time"], model="bytes")

    async def ask() -> None:
        while True:
            (score,) = await client.score(["once upon a time"], model="bytes")
            assert score == expected

    asking = asyncio.create_task(ask())
    yield
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
