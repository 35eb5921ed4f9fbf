"""Settings of a server process: addresses, limits, and paths of the checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from charlm_server.config.limits import Limits
from charlm_server.config.mixtures import MixtureConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsFiles:
    """Where the certificates are; with `client_ca`, callers must show one signed by it."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> list[Path]:
        return [path for path in (self.cert, self.key, self.client_ca) if path is not None]


DEFAULT_MAX_NEW_TOKENS = 256
METRICS_HOST = "127.0.0.1"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """One server process."""

    checkpoints: Mapping[str, Path]  # by resource name, "models/{model}"
    mixtures: Mapping[str, MixtureConfig] = field(default_factory=dict)  # by resource name
    host: str = "127.0.0.1"
    port: int = 50051
    max_batch_size: int = 64
    threads: int | None = None  # of torch; None keeps torch's default
    device: str = "cpu"  # cpu, cuda, or cuda:1
    drain_grace_s: float = 25.0
    stuck_after_s: float = 30.0  # a longer step of the engine makes the server unhealthy
    reflection: bool = True
    admin: bool = False  # AdminService even without tokens
    model_root: Path | None = None  # folder of the checkpoints for LoadModel and the watch
    watch_s: float | None = None  # interval of the watch; None: only on SIGHUP
    unload_grace_s: float = 600.0  # for open calls on a model that is replaced or unloaded
    tls: TlsFiles | None = None  # None is plain text
    tokens: Path | None = None  # None lets everyone call
    metrics_host: str = METRICS_HOST
    metrics_port: int | None = None  # of Prometheus; None serves no metrics
    otlp_endpoint: str | None = (
        None  # of an OpenTelemetry collector, over gRPC; None traces nothing
    )
    limits: Limits = field(default_factory=Limits)


def address_of(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
