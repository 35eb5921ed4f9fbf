"""The same servicers on a Ray cluster of this machine: answers, errors, scaling, and a death."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from charlm_client import (
    Client,
    GenerationStream,
    InvalidRequest,
    ModelNotFound,
    NotOffered,
    Resuming,
    Sampling,
    Stopping,
)
from tests.e2e.processes import CHARLM, free_port, whole

SERVE_CONFIG = Path(__file__).parents[2] / "deploy" / "ray" / "serve.yaml"
REPLICA = b"ray::ServeReplica:charlm"
NUM_TOKENS = 16_000
STOP_TIMEOUT_S = 60
SCALE = ["--replicas", "1:2", "--cpus", "0.5", "--target-calls", "2", "--upscale-after", "0.5"]
PATIENT = Resuming(max_attempts=100, longest_wait_s=0.3)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: make unit"),
    pytest.mark.skipif(sys.platform != "linux", reason="replicas are found in /proc"),
    pytest.mark.skipif("CHARLM_RAY" not in os.environ, reason="takes a minute: make ray"),
]


@dataclass
class Cluster:
    """A driver, the cluster that it started, and where Ray's proxy answers."""

    process: "subprocess.Popen[str]"
    address: str

    @property
    def replicas(self) -> set[int]:
        """The replicas' processes."""
        return {pid for pid in descendants(self.process.pid) if name_of(pid).startswith(REPLICA)}


@pytest.fixture(scope="module")
def cluster(checkpoints: Path) -> Iterator[Cluster]:
    """It must exit with status 0 after SIGTERM."""
    command = [*CHARLM, "serve-ray", str(checkpoints / "bytes"), "--allow-insecure", *SCALE]
    command += ["--port", free_port()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Cluster(process, process.stdout.readline().strip().rsplit(" ", 1)[-1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_TIMEOUT_S) == 0


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with Client(cluster.address, timeout_s=300, resuming=PATIENT) as client:
        yield client


async def test_a_cluster_answers_as_a_server_does(client: Client, server_address: str) -> None:
    async with Client(server_address) as plain:
        for asked in (client, plain):
            assert await asked.check_health("models/bytes")
        both = [
            (
                await asked.generate("once", model="bytes", sampling=Sampling(seed=1)),
                await asked.score(["once upon a time"], model="bytes", details=True),
                whole([chunk async for chunk in stream_of(asked, 500)]),
                b"".join([piece async for piece in asked.compress([b"once" * 99], model="bytes")]),
            )
            for asked in (client, plain)
        ]
    restored = client.decompress([both[0][-1]], model="bytes")

    assert both[0] == both[1]
    assert b"".join([piece async for piece in restored]) == b"once" * 99


async def test_errors_keep_their_details(client: Client) -> None:
    with pytest.raises(ModelNotFound, match="'models/none'") as missing:
        await client.generate("once", model="none")
    with pytest.raises(ModelNotFound, match="'models/none'"):
        _ = [chunk async for chunk in client.stream_generate("once", model="none")]
    with pytest.raises(InvalidRequest) as invalid:
        await client.generate("once", model="bytes", sampling=Sampling(temperature=-1.0))

    assert missing.value.reason == "MODEL_NOT_FOUND"
    assert "temperature" in invalid.value.field


async def test_what_needs_one_server_is_refused_with_a_reason(client: Client) -> None:
    with pytest.raises(NotOffered, match="a state is kept by one replica"):
        await client.states.create("once", model="bytes")
    with pytest.raises(NotOffered, match="is not offered on a Ray cluster"):
        await anext(client.watch_health())
    with pytest.raises(NotOffered):
        await client.admin.loads()


async def test_a_load_brings_a_second_replica(client: Client, cluster: Cluster) -> None:
    enough = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"once "
        await enough.wait()  # the call is work that lasts, and takes no processor
        yield b"upon a time"

    calls = [
        asyncio.create_task(client.stream_score(pieces(), model="bytes").read_total())
        for _ in range(8)
    ]
    assert len(cluster.replicas) == 1
    while len(cluster.replicas) < 2:
        assert await client.check_health()
    enough.set()
    totals = await asyncio.gather(*calls)

    (whole_score,) = await client.score(["once upon a time"], model="bytes")
    assert {total.total_logprob for total in totals} == {whole_score.total_logprob}


async def test_streams_outlive_their_replica(client: Client, cluster: Cluster) -> None:
    undisturbed = whole([chunk async for chunk in stream_of(client, NUM_TOKENS)])
    streams = [stream_of(client, NUM_TOKENS) for _ in range(6)]
    readers = [aiter(stream) for stream in streams]
    received = [[await anext(reader)] for reader in readers]
    os.kill(min(cluster.replicas), signal.SIGKILL)
    for reader, chunks in zip(readers, received, strict=True):
        chunks += [chunk async for chunk in reader]

    assert all(whole(chunks) == undisturbed for chunks in received)
    assert sum(stream.num_resumptions for stream in streams) > 0


def test_the_configuration_file_is_one_of_serve_s(checkpoints: Path) -> None:
    program = (
        "import json, sys\n"
        "from ray.serve.schema import ServeDeploySchema\n"
        "from charlm_server.cluster.application import ADD_SERVICES, build\n"
        "config = json.load(sys.stdin)\n"
        "ServeDeploySchema(**config)\n"
        "assert config['grpc_options']['grpc_servicer_functions'] == [ADD_SERVICES]\n"
        "build({**config['applications'][0]['args'], 'checkpoints': [sys.argv[1]]})\n"
    )
    config = yaml.safe_load(SERVE_CONFIG.read_text(encoding="utf-8"))

    read = subprocess.run(
        [sys.executable, "-c", program, str(checkpoints)],
        input=json.dumps(config),
        capture_output=True,
        text=True,
    )

    assert read.returncode == 0, read.stderr


def stream_of(client: Client, num_tokens: int) -> GenerationStream:
    stopping = Stopping(max_new_tokens=num_tokens, ignore_end_of_text=True)
    return client.stream_generate(
        "once", model="bytes", sampling=Sampling(seed=3), stopping=stopping
    )


def descendants(ancestor: int) -> set[int]:
    """All processes that came of one. Source: proc(5), field 4 of stat."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(") ", 1)[1].split()[1])
        except OSError:
            continue  # it has just ended
    found = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def name_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
