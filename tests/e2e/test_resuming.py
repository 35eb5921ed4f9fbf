"""Servers killed for real in the middle of streams: the reader sees one unbroken text."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from charlm_client import Client, GenerationStream, Resuming, Sampling, Stopping
from charlm_client.types import Chunk

CHARLM = [sys.executable, "-m", "charlm_client"]
NUM_TOKENS = 3_000
SAMPLING = Sampling(seed=11, repetition_penalty=1.1, penalty_window=20)
STOP_TIMEOUT_S = 30
# A server takes seconds to start on a busy machine.
PATIENT = Resuming(max_attempts=100, longest_wait_s=0.3)

pytestmark = pytest.mark.slow


class Server:
    """A process, and where it answers."""

    def __init__(self, checkpoints: Path, port: str = "0") -> None:
        command = [*CHARLM, "serve", str(checkpoints / "bytes"), "--port", port]
        environment = {**os.environ, "CHARLM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip().rsplit(" ", 1)[-1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def serving(checkpoints: Path, port: str = "0") -> Iterator[Server]:
    server = Server(checkpoints, port)
    try:
        yield server
    finally:
        server.kill()
        assert server.process.stdout is not None
        server.process.stdout.close()


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def stream_of(client: Client) -> GenerationStream:
    stopping = Stopping(max_new_tokens=NUM_TOKENS, ignore_end_of_text=True)
    return client.stream_generate("once", model="bytes", sampling=SAMPLING, stopping=stopping)


def whole(chunks: list[Chunk]) -> tuple[bytes, list[int], list[float], object]:
    """All that was told; positions without a gap."""
    positions = [chunk.first_position for chunk in chunks if chunk.token_ids]
    lengths = [len(chunk.token_ids) for chunk in chunks if chunk.token_ids]
    assert positions == [sum(lengths[:place]) for place in range(len(lengths))]
    return (
        b"".join(chunk.data for chunk in chunks),
        [token for chunk in chunks for token in chunk.token_ids],
        [logprob for chunk in chunks for logprob in chunk.logprobs],
        chunks[-1].end,
    )


@pytest.mark.parametrize("num_chunks_before", [1, 3])
async def test_another_replica_goes_on_with_the_same_bits(
    checkpoints: Path, num_chunks_before: int
) -> None:
    port = free_port()
    with serving(checkpoints) as first:
        async with Client(f"{first.address},localhost:{port}", resuming=PATIENT) as client:
            undisturbed = whole([chunk async for chunk in stream_of(client)])
            stream = stream_of(client)
            chunks = aiter(stream)
            received = [await anext(chunks) for _ in range(num_chunks_before)]
            first.kill()
            with serving(checkpoints, port):
                received += [chunk async for chunk in chunks]

    assert whole(received) == undisturbed
    assert stream.num_resumptions > 0


async def test_a_server_that_comes_back_goes_on(checkpoints: Path) -> None:
    with serving(checkpoints) as first:
        async with Client(first.address, resuming=PATIENT) as client:
            undisturbed = whole([chunk async for chunk in stream_of(client)])
            stream = stream_of(client)
            chunks = aiter(stream)
            received = [await anext(chunks) for _ in range(2)]
            first.kill()
            with serving(checkpoints, first.address.rsplit(":", 1)[-1]):
                received += [chunk async for chunk in chunks]

    assert whole(received) == undisturbed
    assert stream.num_resumptions > 0
