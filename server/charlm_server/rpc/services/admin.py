"""AdminService: loads and unloads models, sets aliases, and reports the load."""

from __future__ import annotations  # gRPC's context is generic for type checkers only

import grpc

from charlm.v1 import admin_pb2 as pb
from charlm.v1 import admin_pb2_grpc as pb_grpc
from charlm_server.models.hot_swap import HotSwap
from charlm_server.models.registry import LoadedModel, Models
from charlm_server.rpc.call_context import call_of
from charlm_server.rpc.convert.models import model_from
from charlm_server.state_store import StateStore


class AdminService(pb_grpc.AdminServiceServicer):
    def __init__(self, hot_swap: HotSwap, models: Models, states: StateStore) -> None:
        self._hot_swap, self._models, self._states = hot_swap, models, states

    async def LoadModel(
        self,
        request: pb.LoadModelRequest,
        context: grpc.aio.ServicerContext[pb.LoadModelRequest, pb.LoadModelResponse],
    ) -> pb.LoadModelResponse:
        model = await self._hot_swap.load(request.checkpoint, request.model)
        return pb.LoadModelResponse(model=model_from(model))

    async def UnloadModel(
        self,
        request: pb.UnloadModelRequest,
        context: grpc.aio.ServicerContext[pb.UnloadModelRequest, pb.UnloadModelResponse],
    ) -> pb.UnloadModelResponse:
        await self._hot_swap.unload(request.model)
        return pb.UnloadModelResponse()

    async def SetAlias(
        self,
        request: pb.SetAliasRequest,
        context: grpc.aio.ServicerContext[pb.SetAliasRequest, pb.SetAliasResponse],
    ) -> pb.SetAliasResponse:
        previous = await self._hot_swap.set_alias(request.alias, request.model)
        return pb.SetAliasResponse(previous_model=previous or "")

    async def GetLoad(
        self,
        request: pb.GetLoadRequest,
        context: grpc.aio.ServicerContext[pb.GetLoadRequest, pb.GetLoadResponse],
    ) -> pb.GetLoadResponse:
        models = list(self._models)
        if request.model:
            models = [call_of(context).use(self._models.get(request.model))]
        return pb.GetLoadResponse(loads=[load_of(model, self._states) for model in models])


def load_of(model: LoadedModel, states: StateStore) -> pb.ModelLoad:
    """Each number is exact, but they are read at slightly different times: the engine runs."""
    load = model.scheduler.load
    return pb.ModelLoad(
        model=model.name,
        num_running=load.num_running,
        num_waiting=load.num_waiting,
        num_parked=load.num_parked,
        num_sampled_tokens=load.num_sampled_tokens,
        num_states=states.num_of(model.name),
    )
