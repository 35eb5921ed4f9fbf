"""StateService: convert, call, convert."""

from __future__ import annotations  # gRPC's context is generic for type checkers only

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from weakref import WeakValueDictionary

import grpc

from charlm.v1 import state_pb2 as pb
from charlm.v1 import state_pb2_grpc as pb_grpc
from charlm_model import snapshot as snapshots
from charlm_model.errors import SnapshotError
from charlm_server.errors.states import StateChanged
from charlm_server.models.registry import LoadedModel, Models
from charlm_server.rpc.call_context import call_of
from charlm_server.rpc.call_helpers import convert_off_loop, deadline_of
from charlm_server.rpc.convert.context import (
    ContextResolver,
    Prefix,
    check_provenance,
    requested_model,
    state_error_from,
)
from charlm_server.rpc.convert.fields import TextReader
from charlm_server.rpc.convert.state import (
    continuation_ids,
    page_of,
    state_from,
    time_to_live_from,
)
from charlm_server.rpc.convert.state_import import MAX_DATA_BYTES, import_state, receive_export
from charlm_server.state_store import KeptState, OwnedStates, StateStore
from charlm_server.tasks.search_series import SearchSeries
from charlm_server.tasks.state_reading import advance, read


class StateService(pb_grpc.StateServiceServicer):
    def __init__(self, models: Models, states: StateStore) -> None:
        self._models, self._states = models, states
        # Calls that advance the same state take turns; a lock exists only while it is used.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def CreateState(
        self,
        request: pb.CreateStateRequest,
        context: grpc.aio.ServicerContext[pb.CreateStateRequest, pb.CreateStateResponse],
    ) -> pb.CreateStateResponse:
        call = call_of(context)
        states = self._states.of(call.caller)
        model = call.use(requested_model(self._models, states, request.model, [request.context]))
        time_to_live_s = time_to_live_from(request, self._states.limits)
        prefix = await convert_off_loop(request, _prefix, request, model, states)
        states.check_room()
        series = SearchSeries(model, deadline_of(context, model), call)
        kept = KeptState(
            owner=call.caller,
            model=model.name,
            asked_as=request.model,
            provenance=model.provenance,
            snapshot=await read(series, prefix.ids, prefix.snapshot),
            time_to_live_s=time_to_live_s,
        )
        return pb.CreateStateResponse(state=self._told(self._states.add(kept)))

    async def AdvanceState(
        self,
        request: pb.AdvanceStateRequest,
        context: grpc.aio.ServicerContext[pb.AdvanceStateRequest, pb.AdvanceStateResponse],
    ) -> pb.AdvanceStateResponse:
        lock = self._locks.setdefault(request.name, asyncio.Lock())
        async with lock:
            call = call_of(context)
            kept = self._states.of(call.caller).use(request.name)
            _check_etag(request, kept)
            model = call.use(self._models.of(kept.model, kept.provenance.model_digest))
            check_provenance(kept.provenance, model)
            reader = TextReader(model.vocabulary, request.unknown_characters)
            ids = await convert_off_loop(request, continuation_ids, request, reader)
            series = SearchSeries(model, deadline_of(context, model), call)
            advanced = await advance(series, kept.snapshot, ids)
            further = kept.advanced(advanced.snapshot, is_checkpoint=request.checkpoint)
            changed = self._states.change(kept, further)
        return pb.AdvanceStateResponse(
            state=self._told(changed), total_logprob=advanced.total_logprob
        )

    async def ForkState(
        self,
        request: pb.ForkStateRequest,
        context: grpc.aio.ServicerContext[pb.ForkStateRequest, pb.ForkStateResponse],
    ) -> pb.ForkStateResponse:
        kept = self._owned(context).use(request.name)
        fork = kept.forked(request.position if request.HasField("position") else None)
        return pb.ForkStateResponse(state=self._told(self._states.add(fork)))

    async def GetState(
        self,
        request: pb.GetStateRequest,
        context: grpc.aio.ServicerContext[pb.GetStateRequest, pb.GetStateResponse],
    ) -> pb.GetStateResponse:
        kept = self._owned(context).get(request.name)
        return pb.GetStateResponse(state=self._told(kept))

    async def ListStates(
        self,
        request: pb.ListStatesRequest,
        context: grpc.aio.ServicerContext[pb.ListStatesRequest, pb.ListStatesResponse],
    ) -> pb.ListStatesResponse:
        owned = self._owned(context).all()
        name = self._models.aliases.get(request.model, request.model)
        page, token = page_of(request, [kept for kept in owned if name in ("", kept.model)])
        return pb.ListStatesResponse(
            states=[self._told(kept) for kept in page], next_page_token=token
        )

    async def DeleteState(
        self,
        request: pb.DeleteStateRequest,
        context: grpc.aio.ServicerContext[pb.DeleteStateRequest, pb.DeleteStateResponse],
    ) -> pb.DeleteStateResponse:
        self._owned(context).delete(request.name)
        return pb.DeleteStateResponse()

    async def ExportState(
        self,
        request: pb.ExportStateRequest,
        context: grpc.aio.ServicerContext[pb.ExportStateRequest, pb.ExportStateResponse],
    ) -> AsyncIterator[pb.ExportStateResponse]:
        kept = self._owned(context).use(request.name)
        data = await asyncio.to_thread(snapshots.encode, kept.snapshot, kept.provenance)
        for start in range(0, len(data), MAX_DATA_BYTES):
            yield pb.ExportStateResponse(data=data[start : start + MAX_DATA_BYTES])

    async def ImportState(
        self,
        request_iterator: AsyncIterator[pb.ImportStateRequest],
        context: grpc.aio.ServicerContext[pb.ImportStateRequest, pb.ImportStateResponse],
    ) -> pb.ImportStateResponse:
        call = call_of(context)
        self._states.of(call.caller).check_room()
        data, time_to_live_s = await receive_export(
            request_iterator, self._models, self._states.limits
        )
        try:
            model, snapshot = await import_state(data, self._models, call)
        except SnapshotError as error:
            raise state_error_from(error) from error
        kept = KeptState(
            owner=call.caller,
            model=model.name,
            provenance=model.provenance,
            snapshot=snapshot,
            time_to_live_s=time_to_live_s,
        )
        return pb.ImportStateResponse(state=self._told(self._states.add(kept)))

    def _owned(self, context: Any) -> OwnedStates:
        return self._states.of(call_of(context).caller)

    def _told(self, kept: KeptState) -> pb.State:
        is_batch_invariant = any(
            model.batch_invariance.is_batch_invariant
            for model in (*self._models, *self._models.replaced)
            if (model.name, model.checkpoint.digest) == (kept.model, kept.provenance.model_digest)
        )
        return state_from(kept, self._states.clock(), is_batch_invariant=is_batch_invariant)


def _prefix(request: pb.CreateStateRequest, model: LoadedModel, states: OwnedStates) -> Prefix:
    reader = TextReader(model.vocabulary, request.unknown_characters)
    return ContextResolver(reader, model, states).prefix(request.context, "context")


def _check_etag(request: pb.AdvanceStateRequest, kept: KeptState) -> None:
    if request.etag and request.etag != kept.etag:
        raise StateChanged(kept.name, request.etag, kept.etag)
