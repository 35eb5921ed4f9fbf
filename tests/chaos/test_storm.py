"""Callers leave at any moment, by thousands, many of them killed: nothing of them stays."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from random import Random

import pytest

from charlm_client import Client, GenerationStream, QueueFull, Security, Stopping
from charlm_client.api.admin import ModelLoad
from tests.chaos import form
from tests.chaos.server_process import ServerProcess, load_at_rest, load_once, running
from tests.server.certificates import Authority

NUM_CALLERS = form.of(2_000, 10_000)
CALLERS_PER_PROCESS, NUM_PROCESSES = 400, 4
MAX_CONCURRENT = 100
TOKENS = {
    "caller": f'roles = ["generate", "score", "state"]\nmax_concurrent = {MAX_CONCURRENT}',
    "operator": 'roles = ["admin"]',
}
MAX_GROWTH = 1.1  # of memory, beyond what it was after the first few hundred callers
MOST_IDLE_THREADS = 8  # gRPC's and asyncio's pools grow to a bound when many come at once


@dataclass(frozen=True)
class Guarded:
    """A server that lets callers in by their tokens, which are their names."""

    server: ServerProcess
    authority: Path

    @property
    def address(self) -> str:
        return f"localhost:{self.server.port}"

    @asynccontextmanager
    async def client(self, token: str) -> AsyncIterator[Client]:
        security = Security(ca=self.authority, token=token)
        async with Client(self.address, timeout_s=60.0, security=security) as client:
            yield client


@pytest.fixture
def guarded(fox: Path, tmp_path: Path) -> Iterator[Guarded]:
    authority = Authority()
    cert, key = authority.issue().write(tmp_path, "server")
    (ca := tmp_path / "ca.pem").write_bytes(authority.pem)
    tokens = tmp_path / "tokens.toml"
    tokens.write_text("\n".join(starmap(token_table, TOKENS.items())), encoding="utf-8")
    guards = ["--tls-cert", cert, "--tls-key", key, "--tokens", tokens, "--max-batch-size", 16]
    with running(tmp_path, [fox, *guards]) as server:
        yield Guarded(server, ca)
        assert server.stop() == 0
        assert server.faults() == []


def token_table(name: str, rest: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f'[[tokens]]\nname = "{name}"\nsha256 = "{digest}"\n{rest}'


async def come_and_go(guarded: Guarded, seed: int, num: int, *, killed_after: int | None) -> int:
    """One process of callers; how many of them came."""
    arguments = [guarded.address, guarded.authority, "caller", "fox", seed, num]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *["-m", "tests.chaos.leaver", *map(str, arguments)],
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    num_came = 0
    async for _ in process.stdout:
        num_came += 1
        if num_came == killed_after:
            process.kill()
    assert await process.wait() == (0 if killed_after is None else -9)
    return num_came


async def storm(guarded: Guarded, num: int, seed: int) -> tuple[int, int]:
    """Callers in several processes at once, every other process killed; how many came and died."""
    random, doors = Random(seed), asyncio.Semaphore(NUM_PROCESSES)

    async def one_process(number: int) -> int:
        killed_after = random.randrange(1, CALLERS_PER_PROCESS) if number % 2 else None
        async with doors:
            return await come_and_go(
                guarded, seed + number, CALLERS_PER_PROCESS, killed_after=killed_after
            )

    num_came = num_killed = started = 0
    while num_came < num:
        came = await asyncio.gather(*map(one_process, range(started, started + 2 * NUM_PROCESSES)))
        num_came += sum(came)
        num_killed += NUM_PROCESSES
        started += 2 * NUM_PROCESSES
    return num_came, num_killed


async def test_cancelled_calls_leave_nothing_in_the_server(
    guarded: Guarded, figure: Callable[[str], None]
) -> None:
    server = guarded.server
    async with guarded.client("operator") as operator, guarded.client("caller") as caller:
        await storm(guarded, CALLERS_PER_PROCESS, seed=1_000)
        await at_rest(operator, caller)
        before = server.resident_kib, server.num_files, server.num_threads

        num_came, num_killed = await storm(guarded, NUM_CALLERS, seed=2_000)

        await at_rest(operator, caller)
        after = server.resident_kib, server.num_files, server.num_threads
        await every_permit_is_back(operator, caller)
    figure(
        f"cancel storm: {num_came:,} callers, {num_killed} of their processes killed; "
        f"memory {before[0] // 1024} to {after[0] // 1024} MiB, files {before[1]} to {after[1]}, "
        f"threads {before[2]} to {after[2]}; no row, queue entry, state or permit left"
    )
    assert after[0] <= MAX_GROWTH * before[0]
    assert after[1] == before[1]
    assert after[2] <= before[2] + MOST_IDLE_THREADS


async def at_rest(operator: Client, caller: Client) -> None:
    """Nothing runs or waits, no state is kept, and nothing is open that was not before."""
    await load_at_rest(operator)
    while await caller.states.list():
        pass
    assert (await load_at_rest(operator)).num_states == 0


def num_inside(load: ModelLoad) -> int:
    return load.num_running + load.num_waiting + load.num_parked


async def every_permit_is_back(operator: Client, caller: Client) -> None:
    """As many streams as the token allows can be open at once, and not one more."""

    def endless() -> GenerationStream:
        stopping = Stopping(max_new_tokens=300_000, ignore_end_of_text=True)
        return caller.stream_generate("fox", model="fox", stopping=stopping)

    async with AsyncExitStack() as streams:
        for _ in range(MAX_CONCURRENT):
            await streams.enter_async_context(endless())
        await load_once(operator, lambda load: num_inside(load) == MAX_CONCURRENT)
        with pytest.raises(QueueFull, match=f"{MAX_CONCURRENT} calls at once"):
            await anext(aiter(endless()))
