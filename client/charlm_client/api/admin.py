"""Calls of operators: load, alias and unload models, and their load."""

from __future__ import annotations  # gRPC's stubs are generic for type checkers only

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from charlm.v1 import admin_pb2, admin_pb2_grpc
from charlm_client.types import Model
from charlm_client.wire.from_proto import model_from
from charlm_client.wire.status_errors import translated
from charlm_client.wire.to_proto import model_name

Response = TypeVar("Response")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelLoad:
    """The load of one model: its sequences by status, and totals."""

    model: str
    num_running: int
    num_waiting: int
    num_parked: int
    """Sequences that wait for a slow reader."""
    num_sampled_tokens: int
    num_states: int


class Admin:
    """Loads, aliases and unloads models: `client.admin`.

    Raises NotOffered by a server without --admin, and NotAllowed for a token without that role.
    """

    def __init__(
        self, stub: admin_pb2_grpc.AdminServiceAsyncStub, address: str, timeout_s: float
    ) -> None:
        self._stub, self._address, self._timeout_s = stub, address, timeout_s

    async def load_model(self, checkpoint: str, *, model: str = "") -> Model:
        """Load a checkpoint of the server's model directory, under its own name or `model`."""
        name = model_name(model) if model else ""
        request = admin_pb2.LoadModelRequest(checkpoint=checkpoint, model=name)
        call = self._stub.LoadModel(request, timeout=self._timeout_s)
        return model_from((await self._answer(call)).model)

    async def set_alias(self, alias: str, *, model: str) -> str:
        """Point an alias to a loaded model; returns the model that it pointed to, or ""."""
        request = admin_pb2.SetAliasRequest(alias=model_name(alias), model=model_name(model))
        call = self._stub.SetAlias(request, timeout=self._timeout_s)
        return (await self._answer(call)).previous_model

    async def unload_model(self, model: str) -> None:
        """Unload a model after its open calls have ended, or delete an alias."""
        request = admin_pb2.UnloadModelRequest(model=model_name(model))
        await self._answer(self._stub.UnloadModel(request, timeout=self._timeout_s))

    async def loads(self, *, model: str = "") -> list[ModelLoad]:
        """The load of one model, or of all of them."""
        request = admin_pb2.GetLoadRequest(model=model_name(model) if model else "")
        response = await self._answer(self._stub.GetLoad(request, timeout=self._timeout_s))
        return [
            ModelLoad(
                model=load.model,
                num_running=load.num_running,
                num_waiting=load.num_waiting,
                num_parked=load.num_parked,
                num_sampled_tokens=load.num_sampled_tokens,
                num_states=load.num_states,
            )
            for load in response.loads
        ]

    async def _answer(self, call: Awaitable[Response]) -> Response:
        with translated(self._address):
            return await call
