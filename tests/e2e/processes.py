"""Servers as processes of their own, to be killed for real."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from charlm_client.types import Chunk

CHARLM = [sys.executable, "-m", "charlm_client"]
STOP_TIMEOUT_S = 30


class Server:
    """A process, and where it answers once it does."""

    def __init__(self, checkpoints: Path, *flags: str) -> None:
        command = [*CHARLM, "serve", str(checkpoints), *flags]
        environment = {**os.environ, "CHARLM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self._address = ""

    @property
    def address(self) -> str:
        """Waits until it serves."""
        if not self._address:
            assert self.process.stdout is not None
            self._address = self.process.stdout.readline().strip().rsplit(" ", 1)[-1]
        return self._address

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def serving(checkpoints: Path, port: str = "0", *flags: str) -> Iterator[Server]:
    server = Server(checkpoints, "--port", port, *flags)
    try:
        assert server.address
        yield server
    finally:
        close(server)


@contextmanager
def serving_on(
    checkpoints: Path, hosts: list[str], port: str, *flags: str
) -> Iterator[list[Server]]:
    """One server for each host, all with the same port; they start side by side."""
    servers = [Server(checkpoints, "--host", host, "--port", port, *flags) for host in hosts]
    try:
        assert all(server.address for server in servers)
        yield servers
    finally:
        for server in servers:
            close(server)


def close(server: Server) -> None:
    server.kill()
    assert server.process.stdout is not None
    server.process.stdout.close()


def free_port(host: str = "127.0.0.1") -> str:
    with socket.create_server((host, 0)) as listener:
        return str(listener.getsockname()[1])


def whole(chunks: list[Chunk], index: int = 0) -> tuple[bytes, list[int], list[float], object]:
    """All chunks of an output, joined; asserts that positions have no gap."""
    own = [chunk for chunk in chunks if chunk.index == index]
    positions = [chunk.first_position for chunk in own if chunk.token_ids]
    lengths = [len(chunk.token_ids) for chunk in own if chunk.token_ids]
    assert positions == [sum(lengths[:place]) for place in range(len(lengths))]
    return (
        b"".join(chunk.data for chunk in own),
        [token for chunk in own for token in chunk.token_ids],
        [logprob for chunk in own for logprob in chunk.logprobs],
        own[-1].end,
    )
