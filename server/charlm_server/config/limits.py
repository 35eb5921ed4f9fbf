"""The limits of a server: queues, requests, connections, states."""

from dataclasses import dataclass, field
from typing import Any

from charlm_server.errors.base import ServeError

MIB = 1 << 20


def _bound(default: float, says: str, *, least: float = 1, most: float = 2**31 - 1) -> Any:
    """One limit: its default, its text for --help, and the range of its flag."""
    return field(default=default, metadata={"says": says, "least": least, "most": most})


def _time(default: float, says: str, *, least: float = 0) -> Any:
    """A limit in seconds; gRPC counts milliseconds in 31 bits."""
    return _bound(default, says, least=least, most=2_000_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The one place for every limit and its default: each is a flag, an environment variable and
    a field of GetModel's response. Times are in seconds; for those that allow 0, it means no limit.
    """

    max_prompt_tokens: int = _bound(2_000_000, "Most tokens in a context.")
    max_new_tokens: int = _bound(1_000_000, "Most new tokens in one output.")
    max_outputs: int = _bound(64, "Most outputs of one call.")
    max_stop_sequences: int = _bound(16, "Most stop sequences in one call.", least=0)
    max_stop_sequence_bytes: int = _bound(256, "Most bytes in one stop sequence.")
    max_biases: int = _bound(1024, "Most biased tokens in one call.", least=0)
    max_top_k: int = _bound(256, "Most alternatives returned for one token.", least=0)
    max_constraint_bytes: int = _bound(1 * MIB, "Most bytes in the message of a constraint.")
    max_constraint_states: int = _bound(
        10_000, "Most states in the automaton of a constraint.", most=10_000
    )
    max_score_items: int = _bound(4096, "Most items in one Score call.")
    max_score_tokens: int = _bound(8_000_000, "Most tokens in all items of one Score call.")
    max_request_bytes: int = _bound(16 * MIB, "Most bytes in one request message.", least=1 << 16)
    max_response_message_bytes: int = _bound(
        MIB, "Most bytes in one response message.", least=1 << 16
    )
    max_waiting_bytes: int = _bound(
        256 * 1024, "Unread bytes of a stream before it is paused until its reader catches up."
    )
    max_queued_requests: int = _bound(256, "Most calls queued for one model.")
    max_queued_tokens: int = _bound(64_000_000, "Most tokens across all queued calls.")
    caller_share: float = _bound(
        0.5, "Largest share of a queue, and of the kept states, for one caller.", least=0, most=1
    )
    max_open_calls: int = _bound(1024, "Most open calls, across all connections.")
    max_streams_per_connection: int = _bound(
        1024, "Most open calls on one connection; the client queues further ones."
    )
    max_connections: int = _bound(4096, "Most open connections.")
    max_connection_age_s: float = _time(
        0, "Connections older than this get GOAWAY; open calls finish."
    )
    connection_grace_s: float = _time(0, "Time after GOAWAY before the open calls are cancelled.")
    max_connection_idle_s: float = _time(0, "Connections without calls are closed after this time.")
    keep_alive_s: float = _time(60, "Idle time before the server sends a keep-alive ping.", least=1)
    keep_alive_timeout_s: float = _time(
        20, "How long the client has to acknowledge the ping.", least=1
    )
    min_ping_interval_s: float = _time(10, "Least time between the pings of a client.")
    max_models: int = _bound(64, "Most models and aliases served at once.")
    max_states: int = _bound(4096, "Most states kept at once.", least=0)
    max_states_bytes: int = _bound(
        512 * MIB, "Most bytes of memory for kept states.", least=0, most=1 << 50
    )
    max_checkpoints: int = _bound(64, "Most checkpoints of one state.", least=0)
    state_time_to_live_s: float = _time(
        600,
        "How long a state is kept after its last use, if the request does not say.",
        least=0.001,
    )
    max_state_time_to_live_s: float = _time(
        86_400, "Longest time that a request can ask to keep a state.", least=0.001
    )

    def __post_init__(self) -> None:
        if self.state_time_to_live_s > self.max_state_time_to_live_s:
            raise ServeError(
                f"--state-time-to-live is {self.state_time_to_live_s:g} s; it must be at most "
                f"--max-state-time-to-live, which is {self.max_state_time_to_live_s:g} s."
            )

    def share_of(self, whole: int) -> int:
        """How many of `whole` one caller may have."""
        return max(int(whole * self.caller_share), 1)
