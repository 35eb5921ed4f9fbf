"""Kept model states: create, advance, fork, export and import them."""

from __future__ import annotations  # gRPC's stubs are generic for type checkers only

import builtins
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from charlm.v1 import state_pb2, state_pb2_grpc
from charlm_client.types import After
from charlm_client.wire.status_errors import translated
from charlm_client.wire.to_proto import (
    checked,
    context_message,
    duration_message,
    model_name,
    naming_field,
    unknown_policy,
)

Response = TypeVar("Response")
PART_BYTES = 1 << 18
_PREFIX = "states/"
_POSITION = "a number of tokens, 0 or more"


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """A kept state: what a model remembers of the text that it has read."""

    name: str
    model: str
    model_digest: str
    numerics_id: str
    num_tokens: int
    num_bytes: int
    checkpointed_positions: tuple[int, ...]
    """Positions, in tokens, at which it can be forked besides its end."""
    etag: str
    """Changes with every change of the state."""
    expire_time: datetime


class States:
    """The states that this caller keeps on a server: `client.states`.

    Methods that name a state raise StateNotFound if it does not exist or has expired.
    """

    def __init__(
        self, stub: state_pb2_grpc.StateServiceAsyncStub, address: str, timeout_s: float
    ) -> None:
        self._stub, self._address, self._timeout_s = stub, address, timeout_s

    async def create(
        self,
        text: str | After = "",
        *,
        model: str,
        time_to_live_s: float | None = None,
        replace_unknown: bool = False,
    ) -> State:
        """Let the model read a text, and keep its state.

        It expires `time_to_live_s` seconds after its last use; None means the server's default.
        """
        request = state_pb2.CreateStateRequest(
            model=model_name(model),
            context=context_message(text),
            time_to_live=duration_message(time_to_live_s, "time_to_live"),
            unknown_characters=unknown_policy(replace_unknown),
        )
        call = self._stub.CreateState(request, timeout=self._timeout_s)
        return state_from((await self._answer(call)).state)

    async def advance(
        self,
        name: str,
        text: str,
        *,
        etag: str = "",
        checkpoint: bool = False,
        replace_unknown: bool = False,
    ) -> tuple[State, float]:
        """Let the model read more text; returns the new state and the text's log-prob in nats.

        `checkpoint` makes the new position one that `fork` accepts. With an `etag`, raises
        StateMismatch if the state has been changed since.
        """
        request = state_pb2.AdvanceStateRequest(
            name=state_name(name),
            text=checked(text, "text"),
            etag=etag,
            checkpoint=checkpoint,
            unknown_characters=unknown_policy(replace_unknown),
        )
        answer = await self._answer(self._stub.AdvanceState(request, timeout=self._timeout_s))
        return state_from(answer.state), answer.total_logprob

    async def fork(self, name: str, *, position: int | None = None) -> State:
        """Copy a state at its end, or at a checkpointed position in tokens."""
        with naming_field("position", position, _POSITION):
            request = state_pb2.ForkStateRequest(name=state_name(name), position=position)
        call = self._stub.ForkState(request, timeout=self._timeout_s)
        return state_from((await self._answer(call)).state)

    async def get(self, name: str) -> State:
        """One state. This does not postpone its expiration."""
        request = state_pb2.GetStateRequest(name=state_name(name))
        call = self._stub.GetState(request, timeout=self._timeout_s)
        return state_from((await self._answer(call)).state)

    async def list(self, *, model: str = "") -> builtins.list[State]:
        """All states of this caller, or those of one model."""
        states: builtins.list[State] = []
        page_token = ""
        while True:
            request = state_pb2.ListStatesRequest(
                model=model_name(model) if model else "", page_token=page_token
            )
            answer = await self._answer(self._stub.ListStates(request, timeout=self._timeout_s))
            states += map(state_from, answer.states)
            page_token = answer.next_page_token
            if not page_token:
                return states

    async def delete(self, name: str) -> None:
        """Delete a state."""
        request = state_pb2.DeleteStateRequest(name=state_name(name))
        await self._answer(self._stub.DeleteState(request, timeout=self._timeout_s))

    async def export(self, name: str) -> bytes:
        """The whole state as bytes, for `import_` here or on another server."""
        request = state_pb2.ExportStateRequest(name=state_name(name))
        with translated(self._address):
            call = self._stub.ExportState(request, timeout=self._timeout_s)
            return b"".join([part.data async for part in call])

    async def import_(self, data: bytes, *, time_to_live_s: float | None = None) -> State:
        """Keep an exported state. Raises StateMismatch for another model, DataLoss if damaged."""
        parts = _parts(data, duration_message(time_to_live_s, "time_to_live"))
        call = self._stub.ImportState(parts, timeout=self._timeout_s)
        return state_from((await self._answer(call)).state)

    async def _answer(self, call: Awaitable[Response]) -> Response:
        with translated(self._address):
            return await call


async def _parts(
    data: bytes, time_to_live: Duration | None
) -> AsyncIterator[state_pb2.ImportStateRequest]:
    """Only the first part has the time to live."""
    for at in range(0, max(len(data), 1), PART_BYTES):
        part = data[at : at + PART_BYTES]
        yield state_pb2.ImportStateRequest(data=part, time_to_live=None if at else time_to_live)


def state_name(name: str) -> str:
    """Full resource name of a state."""
    return name if name.startswith(_PREFIX) else _PREFIX + name


def state_from(message: state_pb2.State) -> State:
    return State(
        name=message.name,
        model=message.model,
        model_digest=message.model_digest,
        numerics_id=message.numerics.id,
        num_tokens=message.num_tokens,
        num_bytes=message.num_bytes,
        checkpointed_positions=tuple(message.checkpointed_positions),
        etag=message.etag,
        expire_time=message.expire_time.ToDatetime(tzinfo=UTC),
    )
