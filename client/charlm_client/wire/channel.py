"""The channel: message bounds, keep-alive, and retries for calls that may be repeated."""

import json
import re
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
from charlm_client.errors import InvalidRequest
from charlm_client.security import Security
from charlm_client.wire.trace_propagation import PropagatingChannel

# Calls that change nothing are repeated when no server answered; a generation never is.
IDEMPOTENT = [
    {"service": "charlm.v1.ScoringService"},
    {"service": "charlm.v1.InferenceService"},
    {"service": "charlm.v1.TokenizerService"},
    {"service": "charlm.v1.ModelService"},
    {"service": "grpc.health.v1.Health", "method": "Check"},
]
_RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    # A server that stops cancels calls that it has not begun (grpc 41785).
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}
_SERVICE_CONFIG = {
    "methodConfig": [{"name": IDEMPOTENT, "retryPolicy": _RETRY}],
    "loadBalancingConfig": [{"round_robin": {}}],  # over all addresses that a name has
}
# Several servers are health-checked, so that calls avoid those that hang or stop. A single server
# is not, because its own error says more than "no healthy server".
_HEALTH_CHECKS = {"healthCheckConfig": {"serviceName": "charlm.v1.GenerationService"}}
_NUMBERS = re.compile(r"\d{1,3}(\.\d{1,3}){3}:\d{1,5}")
_LOOPBACK = ("127.", "localhost:", "[::1]:", "unix:")


class Stubs:
    """One channel and the services behind it."""

    def __init__(self, address: str, security: Security | None = None) -> None:
        self.channel = open_channel(address, security)
        traced: Any = PropagatingChannel(self.channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(traced)
        self.codec = codec_pb2_grpc.CodecServiceStub(traced)
        self.generation = generation_pb2_grpc.GenerationServiceStub(traced)
        self.scoring = scoring_pb2_grpc.ScoringServiceStub(traced)
        self.states = state_pb2_grpc.StateServiceStub(traced)
        self.tokenizer = tokenizer_pb2_grpc.TokenizerServiceStub(traced)
        self.inference = inference_pb2_grpc.InferenceServiceStub(traced)
        self.models = models_pb2_grpc.ModelServiceStub(traced)
        self.health = health_pb2_grpc.HealthStub(traced)


def open_channel(address: str, security: Security | None = None) -> grpc.aio.Channel:
    """A channel, in plain text without `security`; it connects with the first call."""
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(service_config(address))),
        ("grpc.enable_retries", 1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # Otherwise a new channel waits for the backoff of an earlier one to this address.
        ("grpc.use_local_subchannel_pool", 1),
        # gRPC sends even calls to this machine through $http_proxy.
        ("grpc.enable_http_proxy", int(not address.startswith(_LOOPBACK))),
    ]
    if security is None:
        return grpc.aio.insecure_channel(target_of(address), options=options)
    return grpc.aio.secure_channel(target_of(address), security.credentials(), options=options)


def service_config(address: str) -> dict[str, object]:
    """Retries, load balancing and health checks. Source: gRFC A6 (retries), A17 (health)."""
    has_several = "," in address or address.startswith("dns:")
    return {**_SERVICE_CONFIG, **(_HEALTH_CHECKS if has_several else {})}


def target_of(address: str) -> str:
    """The gRPC target of one address, or of several numeric ones separated by commas.

    Raises InvalidRequest for a name among several.
    """
    addresses = [each.strip().replace("localhost:", "127.0.0.1:") for each in address.split(",")]
    if len(addresses) == 1:
        return address
    for each in addresses:
        if not _NUMBERS.fullmatch(each):
            raise InvalidRequest(
                f"{each!r} is one of several addresses, so it must be of numbers, as in "
                "10.0.0.1:50051; or give one name that stands for all of them."
            )
    return "ipv4:" + ",".join(addresses)
