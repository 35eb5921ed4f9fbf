"""A server in a process of its own, and what can be seen of it from outside."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from charlm_client import Client
from charlm_client.api.admin import ModelLoad

CHARLM = [sys.executable, "-m", "charlm_client"]
ONE_THREAD = {"CHARLM_THREADS": "1"}
STOP_TIMEOUT_S = 60
LEFT_DURING_WRITE = "ExecuteBatchError raised in core"
PATIENCE_S = 60.0  # for what must come about in a moment


@dataclass(frozen=True)
class ServerProcess:
    """A server process that has printed its address. Its log is in the file `log`."""

    process: subprocess.Popen[str]
    address: str
    log: Path

    @property
    def port(self) -> str:
        return self.address.rsplit(":", 1)[-1]

    @property
    def resident_kib(self) -> int:
        return self._status("VmRSS")

    @property
    def num_threads(self) -> int:
        return self._status("Threads")

    @property
    def num_files(self) -> int:
        """Open files, connections among them."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)

    def stop(self) -> int:
        """Ask it to leave; its exit status."""
        self.process.terminate()
        return self.process.wait(STOP_TIMEOUT_S)

    def faults(self) -> list[str]:
        """Errors in its log, except gRPC's about callers that disconnected during a write."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if " ERROR " in line and LEFT_DURING_WRITE not in line]

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        (found,) = (line for line in lines if line.startswith(f"{name}:"))
        return int(found.split()[1])


@contextmanager
def running(
    folder: Path,
    arguments: Sequence[object],
    *,
    environment: Mapping[str, str] = ONE_THREAD,
    before: Sequence[str] = (),
) -> Iterator[ServerProcess]:
    """`charlm serve` until the block ends; `before` is what the command is started with."""
    log = folder / f"server-{len(list(folder.glob('server-*.log')))}.log"
    command = [*before, *CHARLM, "serve", *map(str, arguments)]
    if "--port" not in arguments:
        command += ["--port", "0"]
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **environment},
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready_line = process.stdout.readline()
            assert ready_line, f"it did not start: {log.read_text(encoding='utf-8')}"
            yield ServerProcess(process, ready_line.split()[-1], log)
        finally:
            if process.poll() is None:
                process.kill()


async def load_when(client: Client, name: str, wanted: int) -> ModelLoad:
    """The load of the only model, once a number of it is what is wanted; it must come to that."""
    return await load_once(client, lambda load: getattr(load, name) == wanted)


async def load_at_rest(client: Client) -> ModelLoad:
    """The load of the only model, once nothing runs, waits or is parked."""
    return await load_once(
        client, lambda load: not (load.num_running or load.num_waiting or load.num_parked)
    )


async def load_once(client: Client, is_it: Callable[[ModelLoad], bool]) -> ModelLoad:
    """The server offers no event for it, so it is asked again and again: each answer is one."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            (load,) = await client.admin.loads()
            if is_it(load):
                return load
