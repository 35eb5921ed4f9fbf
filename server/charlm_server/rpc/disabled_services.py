"""Services of the API that this server does not run: each call says how to enable them."""

from collections.abc import AsyncIterator, Iterable
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from charlm.v1 import admin_pb2
from charlm_server.errors.base import NotOffered

ADVICE = "Start it with --admin, or with --tokens and a token of the role admin."
OPTIONAL_SERVICES: list[ServiceDescriptor] = [
    file.DESCRIPTOR.services_by_name[name] for file, name in ((admin_pb2, "AdminService"),)
]


def add_disabled_services(server: grpc.aio.Server, services: Iterable[ServiceDescriptor]) -> None:
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(
                service.full_name,
                {method.name: _disabled_handler(method) for method in service.methods},
            )
            for service in services
        )
    )


def _disabled_handler(method: MethodDescriptor) -> Any:
    name = f"{method.containing_service.name}.{method.name}"

    async def refuse(_request: Any, _context: Any) -> NoReturn:
        raise NotOffered(name, ADVICE)

    async def refuse_stream(_request: Any, _context: Any) -> AsyncIterator[bytes]:
        raise NotOffered(name, ADVICE)
        yield b""  # makes this a stream, as the contract says

    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    handler_of: Any = kinds[method.client_streaming, method.server_streaming]
    return handler_of(refuse_stream if method.server_streaming else refuse)
