"""Readers that hardly read: the others get their characters as fast as without them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import grpc

from charlm.v1 import generation_pb2 as pb
from charlm.v1 import generation_pb2_grpc
from charlm_client import Client, Sampling, Stopping
from charlm_client.wire.to_proto import generate_message
from tests.chaos import form
from tests.chaos.server_process import load_when, running

NUM_ROUNDS = form.of(5, 40)
# Who waits for a slow reader has nothing at all; 5 % can be told only where nothing else runs.
ENOUGH = form.of(0.7, 0.95)
PHASE_S = 1.0
NUM_FAST, NUM_SLOW, TOKENS = 8, 8, 2_000
ENDLESS = Stopping(max_new_tokens=1_000_000, ignore_end_of_text=True)
WAIT_S = 0.5  # between two messages that a slow one reads
FEW_TOKENS = 20  # of a message to a slow one
SMALL_WINDOW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]


class FastReaders:
    """Streams that are read as fast as they come, one after the other, in the background."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.num_tokens = 0

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._keep_reading(seed)) for seed in range(NUM_FAST)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def rate(self) -> float:
        """Tokens a second, over the next second."""
        before, began = self.num_tokens, time.perf_counter()
        await asyncio.sleep(PHASE_S)  # what is measured is what happens meanwhile
        return (self.num_tokens - before) / (time.perf_counter() - began)

    async def _keep_reading(self, seed: int) -> None:
        stopping = Stopping(max_new_tokens=TOKENS, ignore_end_of_text=True)
        while True:
            async with self._client.stream_generate(
                "fox", model="fox", sampling=Sampling(seed=seed), stopping=stopping
            ) as stream:
                async for chunk in stream:
                    self.num_tokens += len(chunk.token_ids)


@asynccontextmanager
async def slow_readers(address: str) -> AsyncIterator[None]:
    """They read a small message now and then, and hardly ahead, until the block ends."""
    request = generate_message(
        "fox", model="fox", sampling=Sampling(seed=1), stopping=ENDLESS, num_outputs=1,
        replace_unknown=False,
    )  # fmt: skip
    asked = pb.StreamGenerateRequest(generate=request, max_chunk_tokens=FEW_TOKENS)

    async def read_slowly(stub: Any) -> None:
        async for _ in stub.StreamGenerate(asked):
            await asyncio.sleep(WAIT_S)

    async with grpc.aio.insecure_channel(address, options=SMALL_WINDOW) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        tasks = [asyncio.create_task(read_slowly(stub)) for _ in range(NUM_SLOW)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_slow_readers_cost_the_others_nothing(
    fox: Path, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Rounds with and without take turns; means vary less than the best or the medians do."""
    with running(tmp_path, [fox, "--admin", "--max-batch-size", 16]) as server:
        async with Client(server.address, timeout_s=600.0) as client:
            fast = FastReaders(client)
            without, beside = [], []
            async with fast.reading():
                await fast.rate()  # the first second does not count
                for _ in range(NUM_ROUNDS):
                    without.append(await fast.rate())
                    async with slow_readers(server.address):
                        await load_when(client, "num_parked", NUM_SLOW)
                        beside.append(await fast.rate())
                    await load_when(client, "num_running", NUM_FAST)
        assert server.stop() == 0
        assert server.faults() == []
    ratio = mean(beside) / mean(without)
    figure(
        f"slow readers: {NUM_FAST} others read {mean(without):,.0f} tokens/s; beside {NUM_SLOW} "
        f"slow ones {ratio:.3f} of that, means of {NUM_ROUNDS} rounds"
    )
    assert ratio >= ENOUGH
