"""Runs a workload and records every stream."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from charlm_client.bench.workload import PlannedStream, Workload
from charlm_client.client import Client
from charlm_client.errors import CharlmError, InvalidRequest
from charlm_client.types import Sampling, Stopping

MOST_OPEN = 4096  # streams of an open loop; more wait for one to end


@dataclass(slots=True)
class StreamRecord:
    """One stream; times are in seconds since the test began."""

    started_at: float
    chunks: list[tuple[float, int]] = field(default_factory=list)  # when, and how many characters
    is_slow: bool = False
    error: str = ""  # its kind, where it failed
    has_ended: bool = False


class LoadGenerator:
    """Runs the streams of a workload with one client."""

    def __init__(
        self,
        client: Client,
        model: str,
        workload: Workload,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._client, self._model, self._workload = client, model, workload
        self._clock = clock
        self._requests = workload.requests()
        self._text = ""
        self._began = 0.0
        self.records: list[StreamRecord] = []

    async def run(self) -> list[StreamRecord]:
        """All streams that began; those cut off by the end of the test have not ended.

        Raises InvalidRequest if the server refuses the requests of the workload.
        """
        await self._prepare()
        self._began = self._clock()
        loops = (
            [self._closed_loop() for _ in range(self._workload.num_streams)]
            if self._workload.rate is None
            else [self._open_loop()]
        )
        tasks = [asyncio.create_task(each) for each in loops]
        await asyncio.wait(
            tasks, timeout=self._workload.duration_s, return_when=asyncio.FIRST_EXCEPTION
        )
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):  # a CancelledError is none
                raise ended
        return self.records

    async def _prepare(self) -> None:
        """Generate the text of the prompts with the model, so that it is in its vocabulary."""
        length = self._workload.prompt_lengths.most
        stopping = Stopping(max_new_tokens=length, ignore_end_of_text=True)
        generation = await self._client.generate(
            "", model=self._model, sampling=Sampling(seed=self._workload.seed), stopping=stopping
        )
        text = generation.outputs[0].text or " "
        self._text = text * (-(-length // len(text)))

    async def _closed_loop(self) -> None:
        while True:
            await self._stream(next(self._requests))

    async def _open_loop(self) -> None:
        free_slots = asyncio.Semaphore(MOST_OPEN)
        try:
            async with asyncio.TaskGroup() as streams:
                for at in self._workload.arrivals():
                    await asyncio.sleep(max(0.0, self._began + at - self._clock()))
                    await free_slots.acquire()
                    task = streams.create_task(self._stream(next(self._requests)))
                    task.add_done_callback(lambda _: free_slots.release())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _stream(self, request: PlannedStream) -> None:
        record = StreamRecord(self._now(), is_slow=request.is_slow)
        self.records.append(record)
        stopping = Stopping(max_new_tokens=request.output_length, ignore_end_of_text=True)
        try:
            async with self._client.stream_generate(
                self._text[: request.prompt_length],
                model=self._model,
                sampling=Sampling(seed=request.seed),
                stopping=stopping,
            ) as stream:
                async for chunk in stream:
                    record.chunks.append((self._now(), len(chunk.text)))
                    if request.is_slow:
                        await asyncio.sleep(self._workload.slow_wait_s)
            record.has_ended = True
        except InvalidRequest:  # every stream of this workload would be refused
            raise
        except CharlmError as error:
            record.error = type(error).__name__
            await asyncio.sleep(0.01)  # limits the rate of a closed loop at a server that refuses

    def _now(self) -> float:
        return self._clock() - self._began
