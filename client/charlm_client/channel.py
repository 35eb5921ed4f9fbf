"""The channel: message bounds, keep-alive, and retries for calls that may be repeated."""

import json

import grpc

# Calls that change nothing are repeated when no server answered; a generation never is.
_IDEMPOTENT = [
    {"service": "charlm.v1.ScoringService"},
    {"service": "charlm.v1.TokenizerService"},
    {"service": "charlm.v1.ModelService"},
    {"service": "grpc.health.v1.Health", "method": "Check"},
]
_RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
SERVICE_CONFIG = json.dumps({"methodConfig": [{"name": _IDEMPOTENT, "retryPolicy": _RETRY}]})


def open_channel(address: str) -> grpc.aio.Channel:
    """A plain-text channel; it connects with the first call."""
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.service_config", SERVICE_CONFIG),
            ("grpc.enable_retries", 1),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_permit_without_calls", 0),
        ],
    )
