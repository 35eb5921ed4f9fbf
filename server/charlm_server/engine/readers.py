"""What the reading lanes read: token ids after a snapshot or after the start of a text.

Legend: T tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from charlm_model.snapshot import Snapshot
from charlm_model.state import State


class Reader(Protocol):
    """Token ids to read, at least one where it begins with no snapshot."""

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def snapshot(self) -> Snapshot | None:
        """The state before the ids; None is the start of a text."""
        ...

    @property
    def is_over(self) -> bool:
        """The call has ended, so that nothing more need be read."""
        ...

    def accept(self, logits_TV: Tensor, start: int) -> None:
        """Take the logits that follow each of ids[start], ids[start + 1], ...

        A snapshot's own come first, with a start of -1: they are of ids[0].
        """
        ...

    def done(self, state: State | None, logits_1V: Tensor) -> None:
        """All ids are read; the state is None where the lane does not keep it.

        The state is valid until the lane reads on: clone it to keep it for longer.
        """
        ...


class Owner(Protocol):
    """The job or the sequence that a prefix belongs to."""

    @property
    def is_over(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class PrefixReader:
    """Reads what an answer follows, and hands over the logits after its last token."""

    owner: Owner
    ids: Sequence[int]
    snapshot: Snapshot | None
    on_read: Callable[[State | None, Tensor], None]
    on_logits: Callable[[Tensor, int], None] | None = None  # as `accept`; None: not wanted

    @property
    def is_over(self) -> bool:
        return self.owner.is_over

    def accept(self, logits_TV: Tensor, start: int) -> None:
        if self.on_logits is not None:
            self.on_logits(logits_TV, start)

    def done(self, state: State | None, logits_1V: Tensor) -> None:
        self.on_read(state, logits_1V)
