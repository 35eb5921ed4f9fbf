"""What a server is told when it starts: addresses, limits, and where the checkpoints are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from charlm_server.mixtures import MixtureConfig

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsFiles:
    """Where the certificates are; with `client_ca`, callers must show one signed by it."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> list[Path]:
        return [path for path in (self.cert, self.key, self.client_ca) if path is not None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a request may ask for; GetModel tells. The one place for every bound."""

    max_prompt_tokens: int = 2_000_000
    max_new_tokens: int = 1_000_000
    max_outputs: int = 64
    max_stop_sequences: int = 16
    max_stop_sequence_bytes: int = 256
    max_biases: int = 1024
    max_top_k: int = 256
    max_score_items: int = 4096
    max_score_tokens: int = 8_000_000
    max_request_bytes: int = 16 * MIB
    max_response_message_bytes: int = MIB
    max_queued_requests: int = 256
    max_queued_tokens: int = 64_000_000
    max_models: int = 64  # and aliases
    max_states: int = 4096  # kept at the same time
    max_states_bytes: int = 512 * MIB  # of all of them
    max_checkpoints: int = 64  # of one state
    state_time_to_live_s: float = 600.0  # after its last use, unless asked otherwise
    max_state_time_to_live_s: float = 86_400.0
    max_waiting_bytes: int = 256 * 1024  # of one stream, before its rows are parked


DEFAULT_MAX_NEW_TOKENS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """One server process."""

    checkpoints: Mapping[str, Path]  # by resource name, "models/{model}"
    mixtures: Mapping[str, MixtureConfig] = field(default_factory=dict)  # by resource name
    host: str = "127.0.0.1"
    port: int = 50051
    max_batch_size: int = 64
    threads: int | None = None  # of torch; None leaves its own choice
    drain_grace_s: float = 25.0
    stuck_after_s: float = 30.0  # a step of the engine that lasts longer makes health say so
    reflection: bool = True
    admin: bool = False  # AdminService even without tokens
    model_root: Path | None = None  # where LoadModel and the watch find checkpoints
    watch_s: float | None = None  # how often to look for new checkpoints there; None: when asked
    unload_grace_s: float = 600.0  # for calls on a model that is replaced or unloaded
    tls: TlsFiles | None = None  # None is plain text
    tokens: Path | None = None  # None lets everyone call
    limits: Limits = field(default_factory=Limits)
