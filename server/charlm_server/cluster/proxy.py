"""Set-up of Ray's gRPC proxy: the services, and how errors look on the wire.

Runs in the proxy's process, which loads no model: nothing here may import torch.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from charlm.v1 import (
    admin_pb2_grpc,
    codec_pb2_grpc,
    generation_pb2_grpc,
    inference_pb2_grpc,
    models_pb2_grpc,
    scoring_pb2_grpc,
    state_pb2_grpc,
    tokenizer_pb2_grpc,
)

STATUS_DETAILS = "grpc-status-details-bin"
# RPCs that cannot work behind a proxy that routes each call to any replica.
REFUSED = {
    # Ray would count an open watch as load and add replicas for it.
    "/grpc.health.v1.Health/Watch": (
        "Health.Watch is not offered on a Ray cluster: Ray replaces unhealthy replicas. "
        "Use Health.Check."
    ),
    "/charlm.v1.AdminService/": (
        "AdminService is not offered on a Ray cluster: only one replica would change. "
        "Restart the application with the models that it should serve."
    ),
    "/charlm.v1.StateService/": (
        "StateService is not offered on a Ray cluster: a state is kept by one replica, and the "
        "next call may go to another. Let states travel with the calls: return_state, inline_state."
    ),
}
REPLICA_DIED = "The replica crashed during the call; retry at once on another one."

ADD_SERVICER: list[Callable[[Any, Any], None]] = [
    admin_pb2_grpc.add_AdminServiceServicer_to_server,
    codec_pb2_grpc.add_CodecServiceServicer_to_server,
    generation_pb2_grpc.add_GenerationServiceServicer_to_server,
    inference_pb2_grpc.add_InferenceServiceServicer_to_server,
    models_pb2_grpc.add_ModelServiceServicer_to_server,
    scoring_pb2_grpc.add_ScoringServiceServicer_to_server,
    state_pb2_grpc.add_StateServiceServicer_to_server,
    tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server,
    health_pb2_grpc.add_HealthServicer_to_server,
]

Handler = Callable[[Any, Any], Any]


def add_services(servicer: Any, server: Any) -> None:
    """Named in Ray's `grpc_servicer_functions`. Every method is routed to a replica."""
    route: Callable[..., Handler] = server.service_handler_factory

    def route_with_our_errors(*, service_method: str, streaming_type: Any) -> Handler:
        is_stream = streaming_type.name.endswith("_STREAM")
        for start, sentence in REFUSED.items():
            if service_method.startswith(start):
                return unimplemented_stream(sentence) if is_stream else unimplemented(sentence)
        handler = route(service_method=service_method, streaming_type=streaming_type)
        return stream_with_crash_reported(handler) if is_stream else with_crash_reported(handler)

    server.service_handler_factory = route_with_our_errors
    for add in ADD_SERVICER:
        add(servicer, server)


def with_crash_reported(handler: Handler) -> Handler:
    """The same handler, with a crashed replica reported as UNAVAILABLE."""

    async def answer(request: Any, context: Any) -> Any:
        response = await handler(request, context)
        _report_crash(context)
        return response

    return answer


def stream_with_crash_reported(handler: Handler) -> Handler:
    """The same, without the empty message that carries a refusal's details from the replica."""

    async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
        async for response in handler(request, context):
            if not context.code():
                yield response
        _report_crash(context)

    return answers


def _report_crash(context: Any) -> None:
    """Ray reports a crashed replica as INTERNAL; our INTERNAL errors have details, Ray's do not."""
    is_internal = context.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INTERNAL.value[0])
    is_ours = any(key == STATUS_DETAILS for key, _ in context.trailing_metadata() or ())
    if is_internal and not is_ours:
        context.set_code(grpc.StatusCode.UNAVAILABLE)
        context.set_details(REPLICA_DIED)


def unimplemented(sentence: str) -> Handler:
    async def refuse(_request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, sentence)

    return refuse


def unimplemented_stream(sentence: str) -> Handler:
    async def refuse(_request: Any, context: Any) -> AsyncIterator[bytes]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, sentence)
        yield b""  # makes this a stream, as the contract says

    return refuse
