"""Ten times more calls than a server can answer: it answers as many, and refuses at once."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest

from charlm_client import Client, QueueFull, Sampling, Stopping
from charlm_client.bench.results import percentile
from tests.chaos import form
from tests.chaos.server_process import load_at_rest, running

NUM_ROUNDS = form.of(3, 5)
BATCH, QUEUE = 4, 4
OVERLOAD = 10
LONGEST_S = 180.0
MOST_OPEN = 500  # of one connection, which the server lets have twice as many


pytestmark = pytest.mark.skipif(
    not form.IS_LONG, reason="it measures times, and needs a machine with nothing else to do"
)


@dataclass
class Phase:
    """What came of the calls of some seconds."""

    num_tokens: int  # of a call
    answered_at: list[float] = field(default_factory=list)
    num_begun: int = 0
    num_refused: int = 0
    num_open: int = 0
    least_retry_s: float = 3600.0  # that anyone was told to wait

    @property
    def goodput(self) -> float:
        """Answers a second, between the first and the last of them."""
        first, last = min(self.answered_at), max(self.answered_at)
        return (len(self.answered_at) - 1) / (last - first)


async def call(client: Client, phase: Phase) -> None:
    phase.num_begun += 1
    phase.num_open += 1
    stopping = Stopping(max_new_tokens=phase.num_tokens, ignore_end_of_text=True)
    try:
        await client.generate(
            "fox", model="whale", sampling=Sampling(seed=phase.num_begun), stopping=stopping
        )
    except QueueFull as refusal:
        phase.num_refused += 1
        phase.least_retry_s = min(phase.least_retry_s, refusal.retry_after_s)
    else:
        phase.answered_at.append(time.perf_counter())
    finally:
        phase.num_open -= 1


async def at_capacity(client: Client, num_tokens: int, seconds: float) -> Phase:
    """As many callers as there is room for, each with one call after the other."""
    phase, ends_at = Phase(num_tokens), time.perf_counter() + seconds

    async def keep_calling() -> None:
        while time.perf_counter() < ends_at:
            await call(client, phase)

    await asyncio.gather(*(keep_calling() for _ in range(BATCH + QUEUE // 2)))
    return phase


async def beyond(client: Client, num_tokens: int, seconds: float, rate: float) -> Phase:
    """So many calls a second, come what may."""
    phase, began = Phase(num_tokens), time.perf_counter()
    async with asyncio.TaskGroup() as calls:
        while (now := time.perf_counter()) < began + seconds:
            while phase.num_begun < (now - began) * rate and phase.num_open < MOST_OPEN:
                calls.create_task(call(client, phase))
                await asyncio.sleep(0)
            await asyncio.sleep(1 / rate)
    return phase


@asynccontextmanager
async def onlooker(address: str) -> AsyncIterator[dict[str, list[float]]]:
    """Times of a caller in a process of its own; they are there once the block has ended."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "tests.chaos.onlooker", address, "whale"],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    times: dict[str, list[float]] = {}
    yield times
    told, _ = await process.communicate(b"")  # which closes it
    times |= json.loads(told)


@pytest.mark.parametrize(("num_tokens", "phase_s", "least"), [(400, 3.0, 0.6), (2000, 6.0, 0.9)])
async def test_goodput_holds_and_refusals_are_quick(
    whale: Path,
    tmp_path: Path,
    figure: Callable[[str], None],
    num_tokens: int,
    phase_s: float,
    least: float,
) -> None:
    """What else a machine does only ever slows things, so the best rounds are compared.

    Nine refusals for every answer take about 14 ms of a core, and as much of the callers, who have
    the same two cores: an answer that takes 40 ms leaves too little for them, one of 200 does not.
    """
    bounds = ["--admin", "--max-batch-size", BATCH, "--max-queued-requests", QUEUE]
    bounds += ["--threads", 1]  # the callers, who have the same two cores, need one of them
    with running(tmp_path, [whale, *bounds]) as server:
        async with asyncio.timeout(LONGEST_S), Client(server.address) as client:
            peaks, overs = [await at_capacity(client, num_tokens, phase_s)], []
            async with onlooker(server.address) as times:
                for _ in range(NUM_ROUNDS):
                    peaks.append(await at_capacity(client, num_tokens, phase_s))
                    rate = OVERLOAD * max(each.goodput for each in peaks)
                    overs.append(await beyond(client, num_tokens, phase_s, rate))
            await load_at_rest(client)
        assert server.stop() == 0
        assert server.faults() == []
    peak = max(each.goodput for each in peaks)
    ratio = max(each.goodput for each in overs) / peak
    offered = median(each.num_begun for each in overs) / phase_s / peak
    refused = sorted(times["refused_s"])
    p50, p99 = (1000 * percentile(refused, share) for share in (0.5, 0.99))
    plain_ms = 1000 * median(times["plain_s"])
    figure(
        f"overload: {offered:.1f} times the peak of {peak:.1f} answers/s of {num_tokens:,} tokens "
        f"offered: goodput "
        f"{ratio:.3f} of the peak; {sum(each.num_refused for each in overs):,} refused, an "
        f"onlooker {len(refused):,} times, p50 {p50:.1f} ms, p99 {p99:.1f} ms, where a call "
        f"without work took {plain_ms:.1f} ms"
    )
    assert min(each.least_retry_s for each in overs) > 0
    assert ratio >= least
    assert p50 < 5.0 + 2 * plain_ms  # 5 ms of the server's own, however busy the machine is
