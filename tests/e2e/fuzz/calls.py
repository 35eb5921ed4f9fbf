"""Calls every method of a running server with random messages, and says what must not be."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from random import Random

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from charlm_client.wire.first_status import FirstStatus
from tests.e2e.fuzz.messages import Messages

DEADLINE_S, HANG_S = 1.0, 30.0
FAULTS = {"INTERNAL", "UNKNOWN", "UNAVAILABLE"}
NUM_SIDE_BY_SIDE = 32
# What gRPC says in place of the server's refusal when it still has something to send; faults of the
# server itself are in its log. Source: https://github.com/grpc/grpc/issues/36066.
LATE_WRITE = "Internal error from Core"


@dataclass
class Found:
    """How many calls ended how, and those that ended as none may."""

    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def num_calls(self) -> int:
        return sum(self.codes.values())

    def num_ended(self, code: str) -> int:
        return sum(number for (_, each), number in self.codes.items() if each == code)


@dataclass(frozen=True)
class Fuzz:
    """Everything that is random comes from one seed and the number of the call."""

    channel: grpc.aio.Channel
    messages_of: dict[str, Messages]  # by the full name of the service
    services: Sequence[ServiceDescriptor]
    seed: int

    async def run(self, num_calls: int) -> Found:
        found = Found()
        numbers = iter(range(num_calls))

        async def caller() -> None:
            for number in numbers:
                await self._call(Random(f"{self.seed} {number}"), found)

        async with asyncio.TaskGroup() as group:
            for _ in range(NUM_SIDE_BY_SIDE):
                group.create_task(caller())
        return found

    async def _call(self, random: Random, found: Found) -> None:
        method = random.choice(random.choice(self.services).methods)
        messages = self.messages_of[method.containing_service.full_name]
        num = random.randrange(5) if method.client_streaming else 1
        requests = [messages.bytes_of(method.input_type) for _ in range(num)]
        stops_after = random.choice((None, None, None, None, 0, 1, 2))
        try:
            async with asyncio.timeout(HANG_S):
                code = await self._ended(method, requests, stops_after)
        except TimeoutError:
            code = "HANG"
        found.codes[method.full_name, code] += 1
        if code in FAULTS or code == "HANG":
            found.faults.append(f"{method.full_name} {code} {requests!r}")

    async def _ended(
        self, method: MethodDescriptor, requests: list[bytes], stops_after: int | None
    ) -> str:
        """The call's status; CANCELLED where the caller loses interest after some answers."""
        path = f"/{method.containing_service.full_name}/{method.name}"
        kinds = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, False): self.channel.stream_unary,
            (True, True): self.channel.stream_stream,
        }
        start = kinds[method.client_streaming, method.server_streaming](path)
        call = start(
            _sent(requests) if method.client_streaming else requests[0], timeout=DEADLINE_S
        )
        status = FirstStatus(call)
        try:
            if method.server_streaming:
                num_answers = 0
                async for _ in call:
                    num_answers += 1
                    if num_answers == stops_after:
                        call.cancel()
            elif stops_after == 0:
                call.cancel()
            else:
                await call
        except grpc.aio.AioRpcError as error:
            told = status.of(error)
            is_ours = told.details() != LATE_WRITE
            return str(told.code().name) if is_ours else "LATE_WRITE"
        except asyncio.CancelledError:
            if not call.cancelled():
                raise
        return str((await call.code()).name)


async def _sent(requests: list[bytes]) -> AsyncIterator[bytes]:
    for request in requests:
        yield request
