"""TLS and the access token of a connection."""

from dataclasses import dataclass
from pathlib import Path

import grpc

from charlm_client.errors import InvalidRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Security:
    """A connection with TLS. Raises InvalidRequest for one of `cert` and `key` alone.

    `ca` is a PEM file of the authorities that the server's certificate may be signed by; None
    means the system's. `cert` and `key`, PEM files too, identify the client to servers that ask
    for it. `token` is the access token; it is sent with every call, and only over TLS.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    token: str = ""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise InvalidRequest(
                "A certificate and its key belong together: give both cert and key, or neither."
            )

    def __repr__(self) -> str:
        token = "hidden" if self.token else "none"
        return f"Security(ca={self.ca}, cert={self.cert}, key={self.key}, token={token})"

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises InvalidRequest if a file cannot be read."""
        channel = grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.cert))
        if not self.token:
            return channel
        return grpc.composite_channel_credentials(
            channel, grpc.access_token_call_credentials(self.token)
        )


def _read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from None
