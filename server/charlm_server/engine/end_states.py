"""The state at the end of an output, for a client that goes on from there.

Rows go on past the end of an output, because its tokens are looked at later. So some states are
kept on the way, and the few tokens from the last of them to the end are read again.
"""

from collections import deque
from dataclasses import dataclass

from torch import Tensor

from charlm_model.snapshot import Snapshot
from charlm_model.state import State

MIN_DISTANCE = 64  # tokens between two kept states: a copy costs about as much as some steps


@dataclass(frozen=True, slots=True)
class KeptPoint:
    """The state after `position` tokens of an output, and the logits of the next one."""

    position: int
    state: State
    logits_1V: Tensor


class EndState:
    """Finds the state after what was shown of one output."""

    def __init__(self, num_prompt_tokens: int, received_ids: list[int]) -> None:
        self._num_prompt_tokens = num_prompt_tokens
        self._shown_ids = list(received_ids)
        self._points: deque[KeptPoint] = deque()

    def show(self, ids: list[int]) -> None:
        """What is shown only grows, so states before the last one within it are dropped."""
        self._shown_ids += ids
        while len(self._points) > 1 and self._points[1].position <= len(self._shown_ids):
            self._points.popleft()

    def wants(self, position: int) -> bool:
        """Whether a state after so many tokens should be kept."""
        return not self._points or position - self._points[-1].position >= MIN_DISTANCE

    def keep(self, position: int, state: State, logits_1V: Tensor) -> None:
        """Keep a copy of a state that may be overwritten."""
        self._points.append(KeptPoint(position, state.clone(), logits_1V.clone()))

    @property
    def num_tokens(self) -> int:
        """Of the whole text: the prompt, and what was shown after it."""
        return self._num_prompt_tokens + len(self._shown_ids)

    def unread(self) -> tuple[Snapshot, list[int]] | None:
        """A kept state within what was shown, the last one, and the ids from there to the end.

        None if no state was kept.
        """
        if not self._points:
            return None
        point = self._points[0]
        num_tokens = self._num_prompt_tokens + point.position
        snapshot = Snapshot(point.state, point.logits_1V, num_tokens)
        return snapshot, self._shown_ids[point.position :]

    @property
    def shown_ids(self) -> list[int]:
        return self._shown_ids
