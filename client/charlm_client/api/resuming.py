"""Resuming a stream on another server: what was received, and when to retry."""

import random
from dataclasses import dataclass, field

from charlm.v1 import context_pb2, generation_pb2
from charlm_client.errors import InvalidRequest
from charlm_client.types import Chunk, FinishReason

# The server is stopping; another server continues the output.
DRAINED = FinishReason.DRAINED


@dataclass(frozen=True, kw_only=True, slots=True)
class Resuming:
    """Retries of a stream whose server failed: exponential backoff with jitter.

    The stream fails after `max_attempts` attempts without a new character; 0 turns resuming off.
    Waits are in seconds: they start at `first_wait_s`, double up to `longest_wait_s`, and each is
    multiplied by a random factor from 0.5 to 1, so that clients do not retry all at once. Raises
    InvalidRequest for values out of range.
    """

    max_attempts: int = 8
    first_wait_s: float = 0.1
    longest_wait_s: float = 3.0

    def __post_init__(self) -> None:
        if not (self.max_attempts >= 0 and 0 < self.first_wait_s <= self.longest_wait_s):
            raise InvalidRequest(
                f"Resuming has {self.max_attempts} attempts and waits of {self.first_wait_s} to "
                f"{self.longest_wait_s} s, but needs 0 or more attempts and a first wait above 0 "
                "and not above the longest."
            )

    def wait_s(self, attempt: int) -> float:
        """Seconds to wait before attempt number `attempt`, from 0."""
        longest = min(self.first_wait_s * 2.0**attempt, self.longest_wait_s)
        return longest * random.uniform(0.5, 1.0)


@dataclass(slots=True)
class Received:
    """What was received of each output of a stream."""

    num_outputs: int
    _tokens: dict[int, bytes] = field(default_factory=dict)
    _ids: dict[int, list[int]] = field(default_factory=dict)
    _ended: set[int] = field(default_factory=set)

    def add(self, chunk: Chunk) -> None:
        self._ids.setdefault(chunk.index, []).extend(chunk.token_ids)
        self._tokens[chunk.index] = chunk.resume_token
        if chunk.end is not None:
            self._ended.add(chunk.index)

    @property
    def is_whole(self) -> bool:
        return len(self._ended) == self.num_outputs

    @property
    def is_resumable(self) -> bool:
        """Whether something was received, and each part with a resume token."""
        return bool(self._tokens) and all(self._tokens.values()) and not self.is_whole

    def points(self) -> list[generation_pb2.ResumePoint]:
        return [
            generation_pb2.ResumePoint(
                resume_token=token,
                received=None
                if index in self._ended
                else context_pb2.TokenIds(ids=self._ids[index]),
            )
            for index, token in self._tokens.items()
        ]
