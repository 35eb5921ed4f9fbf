"""Server reflection v1 and v1alpha, so that tools find the services without our proto files."""

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

# v1 is v1alpha under another name, message by message: the same bytes on the wire.
PACKAGES = ("grpc.reflection.v1", "grpc.reflection.v1alpha")


def add_reflection(server: grpc.aio.Server, service_names: Iterable[str]) -> None:
    """Offer reflection of these services and of itself."""
    _describe_v1()
    own_names = [f"{package}.ServerReflection" for package in PACKAGES]
    servicers: Any = aio
    servicer = servicers.ReflectionServicer([*service_names, *own_names])
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    methods = {"ServerReflectionInfo": method}
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, methods) for name in own_names)
    )


def _describe_v1() -> None:
    """Register v1's description beside v1alpha's, so that reflection lists both."""
    description = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(description)
    text = text_format.MessageToString(description).replace("v1alpha", "v1")
    renamed = text_format.Parse(text, FileDescriptorProto())
    descriptor_pool.Default().AddSerializedFile(renamed.SerializeToString())
