"""InferenceService: convert, call, convert."""

from __future__ import annotations  # gRPC's context is generic for type checkers only

from typing import Any

import grpc

from charlm.v1 import inference_pb2 as pb
from charlm.v1 import inference_pb2_grpc as pb_grpc
from charlm_server.calls.call import Call
from charlm_server.engine.search import SearchJob
from charlm_server.models.registry import LoadedModel, Models
from charlm_server.rpc.call_context import call_of
from charlm_server.rpc.call_helpers import checked_size, convert_off_loop, deadline_of
from charlm_server.rpc.convert.context import requested_model
from charlm_server.rpc.convert.inference import GapQuery, TopContinuationsQuery
from charlm_server.state_store import StateStore

TOO_LARGE = "ask for fewer"


class InferenceService(pb_grpc.InferenceServiceServicer):
    def __init__(self, models: Models, states: StateStore) -> None:
        self._models, self._states = models, states

    async def FillGap(
        self,
        request: pb.FillGapRequest,
        context: grpc.aio.ServicerContext[pb.FillGapRequest, pb.FillGapResponse],
    ) -> pb.FillGapResponse:
        call = call_of(context)
        states = self._states.of(call.caller)
        model = call.use(requested_model(self._models, states, request.model, [request.left]))
        deadline = deadline_of(context, model)
        query = await convert_off_loop(request, GapQuery, request, model, states)
        response = query.response(await _answer(query.job(deadline), model, call))
        return checked_size(response, model.limits.max_response_message_bytes, TOO_LARGE)

    async def ListTopContinuations(
        self,
        request: pb.ListTopContinuationsRequest,
        context: grpc.aio.ServicerContext[
            pb.ListTopContinuationsRequest, pb.ListTopContinuationsResponse
        ],
    ) -> pb.ListTopContinuationsResponse:
        call = call_of(context)
        states = self._states.of(call.caller)
        model = call.use(requested_model(self._models, states, request.model, [request.context]))
        deadline = deadline_of(context, model)
        query = await convert_off_loop(request, TopContinuationsQuery, request, model, states)
        response = query.response(await _answer(query.job(deadline), model, call))
        return checked_size(response, model.limits.max_response_message_bytes, TOO_LARGE)


async def _answer(job: SearchJob, model: LoadedModel, call: Call) -> Any:
    """The result of the search."""
    async with model.scheduler.run(job, call):
        [answer] = await job.output.take(1)
    return answer.value
