"""Calls that are refused before their request is read."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from charlm_server.errors.base import CharlmError


def refusal_handler(error: CharlmError) -> Any:
    """A handler that raises the error in place of any method.

    It takes a stream of requests, whatever the method takes: gRPC reads a single request to its
    end before it calls the handler, so a refused caller could send many megabytes.
    """

    async def refuse(_requests: Any, _context: Any) -> AsyncIterator[Any]:
        raise error
        yield  # which makes it a stream

    return grpc.stream_stream_rpc_method_handler(refuse)
