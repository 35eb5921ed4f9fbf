"""What a server bounds: queues, requests, connections, states."""

from dataclasses import dataclass, field
from typing import Any

from charlm_server.errors.base import ServeError

MIB = 1 << 20


def _bound(default: float, says: str, *, least: float = 1, most: float = 2**31 - 1) -> Any:
    """One limit: what it is unless the operator sets it, what it means, what it may be set to."""
    return field(default=default, metadata={"says": says, "least": least, "most": most})


def _time(default: float, says: str, *, least: float = 0) -> Any:
    """The same for one that is in seconds; gRPC counts milliseconds in 31 bits."""
    return _bound(default, says, least=least, most=2_000_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What callers may ask for. The one place for every bound: each is a flag, an environment
    variable and a field of GetModel's answer. Times are in seconds; 0 means no bound, where it may
    be set to that."""

    max_prompt_tokens: int = _bound(2_000_000, "Tokens of a context.")
    max_new_tokens: int = _bound(1_000_000, "Tokens of one output.")
    max_outputs: int = _bound(64, "Outputs of one call.")
    max_stop_sequences: int = _bound(16, "Stop sequences of one call.", least=0)
    max_stop_sequence_bytes: int = _bound(256, "Bytes of one stop sequence.")
    max_biases: int = _bound(1024, "Biased tokens of one call.", least=0)
    max_top_k: int = _bound(256, "Alternatives told for one token.", least=0)
    max_constraint_bytes: int = _bound(1 * MIB, "Bytes of a constraint as it is sent.")
    max_constraint_states: int = _bound(
        10_000, "States of the automaton that a constraint becomes.", most=10_000
    )
    max_score_items: int = _bound(4096, "Items of one Score call.")
    max_score_tokens: int = _bound(8_000_000, "Tokens of all items of one Score call.")
    max_request_bytes: int = _bound(16 * MIB, "Bytes of one request.", least=1 << 16)
    max_response_message_bytes: int = _bound(
        MIB, "Bytes of one message of an answer.", least=1 << 16
    )
    max_waiting_bytes: int = _bound(
        256 * 1024, "Bytes of a stream that its reader is behind before it is parked."
    )
    max_queued_requests: int = _bound(256, "Calls that wait for one model.")
    max_queued_tokens: int = _bound(64_000_000, "Tokens that those calls may bring.")
    caller_share: float = _bound(
        0.5, "Share of each queue, and of the states, that one caller may take.", least=0, most=1
    )
    max_open_calls: int = _bound(1024, "Calls open at the same time, of all connections.")
    max_streams_per_connection: int = _bound(
        1024, "Calls open at the same time on one connection; further ones wait at the client."
    )
    max_connections: int = _bound(4096, "Connections open at the same time.")
    max_connection_age_s: float = _time(
        0, "Age at which a connection is asked to go; its calls go on."
    )
    connection_grace_s: float = _time(0, "Time its calls have after that before they are ended.")
    max_connection_idle_s: float = _time(
        0, "Time after which a connection without calls is closed."
    )
    keep_alive_s: float = _time(
        60, "Quiet time after which a client is asked whether it lives.", least=1
    )
    keep_alive_timeout_s: float = _time(20, "Time it has to say so.", least=1)
    min_ping_interval_s: float = _time(10, "How often a client may ask the same of the server.")
    max_models: int = _bound(64, "Models and aliases served at the same time.")
    max_states: int = _bound(4096, "States kept at the same time.", least=0)
    max_states_bytes: int = _bound(512 * MIB, "Memory for those states.", least=0, most=1 << 50)
    max_checkpoints: int = _bound(64, "Checkpoints of one state.", least=0)
    state_time_to_live_s: float = _time(
        600, "How long a state is kept after its last use, unless asked otherwise.", least=0.001
    )
    max_state_time_to_live_s: float = _time(86_400, "The most that can be asked for.", least=0.001)

    def __post_init__(self) -> None:
        if self.state_time_to_live_s > self.max_state_time_to_live_s:
            raise ServeError(
                f"--state-time-to-live is {self.state_time_to_live_s:g} s, but may be at most "
                f"--max-state-time-to-live, {self.max_state_time_to_live_s:g} s."
            )

    def share_of(self, whole: int) -> int:
        """What one caller may have of so many."""
        return max(int(whole * self.caller_share), 1)
