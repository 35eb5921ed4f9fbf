"""Going on with a stream whose server died: what was received, and when to try again."""

import random
from dataclasses import dataclass, field

from charlm.v1 import context_pb2, generation_pb2
from charlm_client.errors import InvalidRequest
from charlm_client.types import Chunk, FinishReason

# The server is stopping: another one, or the same one once it is back, goes on.
DRAINED = FinishReason.DRAINED


@dataclass(frozen=True, kw_only=True, slots=True)
class Resuming:
    """How often to try, each time without a character in between, before the stream fails.

    Waits start at `first_wait_s` and double up to `longest_wait_s`; each is shortened by chance, so
    that many clients of one server do not come back at once.
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
        """Before attempt number `attempt`, from 0: half of it is chance."""
        longest = min(self.first_wait_s * 2.0**attempt, self.longest_wait_s)
        return longest * random.uniform(0.5, 1.0)


@dataclass(slots=True)
class Received:
    """What the reader of a stream has so far, output by output."""

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
        """Something was received, and all of it with tokens."""
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
