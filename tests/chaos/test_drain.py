"""SIGTERM under load: what was accepted ends well, or with what it has; nothing is lost."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from charlm_client import (
    Client,
    Draining,
    FinishReason,
    Resuming,
    Sampling,
    Stopping,
    Unavailable,
)
from tests.chaos.server_process import ServerProcess, load_when, running

BATCH, NUM_STREAMS, NUM_WAITING = 8, 8, 8
STAYS_ALONE = Resuming(max_attempts=0)  # or the client would look for another server


@dataclass(frozen=True)
class Ended:
    """How a stream ended, and whether its chunks have no gap."""

    reason: FinishReason | None
    num_tokens: int
    is_unbroken: bool


async def read(client: Client, seed: int, num_tokens: int, begun: Callable[[], None]) -> Ended:
    stopping = Stopping(max_new_tokens=num_tokens, ignore_end_of_text=True)
    positions: list[int] = []
    end = None
    async with client.stream_generate(
        "fox", model="whale", sampling=Sampling(seed=seed), stopping=stopping
    ) as stream:
        async for chunk in stream:
            begun()
            positions += range(chunk.first_position, chunk.first_position + len(chunk.token_ids))
            end = chunk.end or end
    is_unbroken = positions == list(range(len(positions)))
    return Ended(end.finish_reason if end else None, len(positions), is_unbroken)


async def drained(
    server: ServerProcess, num_tokens: int
) -> tuple[list[Ended | BaseException], Counter[str], int]:
    """SIGTERM while all rows are busy and calls wait.

    Returns how the accepted ones ended, how those that came too late were refused, and the exit
    status.
    """
    async with Client(server.address, timeout_s=120.0, resuming=STAYS_ALONE) as client:
        begun = [asyncio.Event() for _ in range(NUM_STREAMS)]
        accepted = [
            asyncio.create_task(read(client, seed, num_tokens, each.set))
            for seed, each in enumerate(begun)
        ]
        await asyncio.gather(*(each.wait() for each in begun))
        accepted += [
            asyncio.create_task(read(client, seed, num_tokens, lambda: None))
            for seed in range(NUM_WAITING)
        ]
        await load_when(client, "num_waiting", NUM_WAITING)
        server.process.send_signal(signal.SIGTERM)
        refusals = await knock_until_refused(server.address)
        ends = await asyncio.gather(*accepted, return_exceptions=True)
        return ends, refusals, await asyncio.to_thread(server.process.wait, 60)


async def knock_until_refused(address: str) -> Counter[str]:
    """Makes one new call after the other until the server refuses them."""
    refusals: Counter[str] = Counter()
    async with Client(address, timeout_s=30.0, resuming=STAYS_ALONE) as client:
        while not refusals:
            try:
                await client.generate("fox", model="whale", stopping=Stopping(max_new_tokens=1))
            except (Draining, Unavailable) as refusal:
                refusals[type(refusal).__name__] += 1
    return refusals


async def test_within_the_grace_every_accepted_call_is_finished(
    whale: Path, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    num_tokens = 2_000
    arguments = [whale, "--admin", "--max-batch-size", BATCH, "--drain-grace", 100]
    with running(tmp_path, arguments) as server:
        ends, refusals, status = await drained(server, num_tokens)
        assert server.faults() == []

    assert ends == [Ended(FinishReason.LENGTH, num_tokens, is_unbroken=True)] * len(ends)
    assert status == 0
    figure(
        f"SIGTERM, {NUM_STREAMS} streams running and {NUM_WAITING} waiting: all {len(ends)} "
        f"finished, the next caller was told {next(iter(refusals))}, exit status {status}"
    )


async def test_after_the_grace_calls_end_with_partial_results(
    whale: Path, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    arguments = [whale, "--admin", "--max-batch-size", BATCH, "--drain-grace", 0.5]
    with running(tmp_path, arguments) as server:
        ends, _, status = await drained(server, 1_000_000)
        assert server.faults() == []

    running_ones, waiting_ones = ends[:NUM_STREAMS], ends[NUM_STREAMS:]
    for end in running_ones:
        assert isinstance(end, Ended)
        assert end.reason is FinishReason.DRAINED
        assert end.is_unbroken
        assert end.num_tokens > 0
    assert all(isinstance(each, Draining) for each in waiting_ones)
    assert status == 0
    figure(
        f"SIGTERM, half a second of grace: {len(running_ones)} running streams ended DRAINED with "
        f"what they had, {len(waiting_ones)} waiting ones were sent to another replica, "
        f"exit status {status}"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops_at_once(fox: Path, tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, [fox]) as server:
        server.process.send_signal(number)

        assert server.process.wait(60) == 0
