"""ModelService: the loaded models and their limits."""

from __future__ import annotations  # gRPC's context is generic for type checkers only

import grpc

from charlm.v1 import models_pb2 as pb
from charlm.v1 import models_pb2_grpc as pb_grpc
from charlm_server.errors.base import InvalidRequest
from charlm_server.models.registry import Models, check_named
from charlm_server.rpc.call_context import call_of
from charlm_server.rpc.convert.fields import check_count
from charlm_server.rpc.convert.models import model_from

DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 100, 1000


class ModelService(pb_grpc.ModelServiceServicer):
    def __init__(self, models: Models) -> None:
        self._models = models

    async def GetModel(
        self,
        request: pb.GetModelRequest,
        context: grpc.aio.ServicerContext[pb.GetModelRequest, pb.GetModelResponse],
    ) -> pb.GetModelResponse:
        check_named(request.name, "name")
        model = call_of(context).use(self._models.get(request.name))
        return pb.GetModelResponse(model=model_from(model))

    async def ListModels(
        self,
        request: pb.ListModelsRequest,
        context: grpc.aio.ServicerContext[pb.ListModelsRequest, pb.ListModelsResponse],
    ) -> pb.ListModelsResponse:
        size = request.page_size if request.HasField("page_size") else DEFAULT_PAGE_SIZE
        check_count("page_size", size, 1, MAX_PAGE_SIZE)
        names = self._names_after(request.page_token)
        page = names[:size]
        return pb.ListModelsResponse(
            models=[model_from(self._models.get(name)) for name in page],
            next_page_token=page[-1] if len(names) > size else "",
        )

    def _names_after(self, page_token: str) -> list[str]:
        """A page token is the last name on the previous page."""
        if page_token and page_token not in self._models.names:
            raise InvalidRequest(
                "page_token", page_token, "the next_page_token of an earlier response"
            )
        return [name for name in self._models.names if name > page_token]
