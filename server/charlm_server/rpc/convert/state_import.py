"""Imported states: collected from pieces up to a limit, and opened by the model that made them."""

import asyncio
from collections.abc import AsyncIterator

from charlm.v1 import state_pb2 as pb
from charlm_model import snapshot as snapshots
from charlm_model.snapshot import Snapshot
from charlm_server.calls.call import Call
from charlm_server.config.limits import Limits
from charlm_server.errors.base import Described, InvalidRequest
from charlm_server.errors.states import StateMismatch
from charlm_server.models.registry import LoadedModel, Models
from charlm_server.rpc.convert.state import time_to_live_from

MAX_DATA_BYTES = 1 << 20  # of one message
MAX_HEADER_BYTES = 1 << 16  # overhead of an exported state beside its values


async def receive_export(
    requests: AsyncIterator[pb.ImportStateRequest], models: Models, limits: Limits
) -> tuple[bytes, float]:
    """The bytes of all messages, and the time to live of the first. Raises InvalidRequest."""
    largest = max((model.state_size_bytes for model in models), default=0) + MAX_HEADER_BYTES
    data, time_to_live_s = bytearray(), None
    async for request in requests:
        if time_to_live_s is None:
            time_to_live_s = time_to_live_from(request, limits)
        if len(request.data) > MAX_DATA_BYTES:
            allowed = f"at most {MAX_DATA_BYTES} bytes"
            raise InvalidRequest("data", Described(f"{len(request.data)} bytes"), allowed)
        data += request.data
        if len(data) > largest:
            allowed = f"at most {largest} bytes in all, the largest state of the models served here"
            raise InvalidRequest("data", Described(f"{len(data)} bytes"), allowed)
    if time_to_live_s is None:
        raise InvalidRequest("data", Described("unset"), "an exported state")
    return bytes(data), time_to_live_s


async def import_state(data: bytes, models: Models, call: Call) -> tuple[LoadedModel, Snapshot]:
    """The model that continues a state, and the state.

    Raises SnapshotError, or StateMismatch if no model made it.
    """
    unchecked = await asyncio.to_thread(snapshots.parse, data)
    digest = unchecked.provenance.model_digest
    name = next((name for name in models.names if models.digest(name) == digest), None)
    if name is None:
        raise StateMismatch(
            f"The state was made by checkpoint {digest[:64]}, which is none of the loaded models "
            f"({', '.join(models.names)}); load it first.",
            "MODEL",
        )
    model = call.use(models.get(name))
    network = model.checkpoint.model
    return model, await asyncio.to_thread(unchecked.checked, model.provenance, network)
