"""Placement: sequences move between ready, a row of the batch, and parked."""

from collections import Counter
from collections.abc import Callable

from torch import Tensor

from charlm_model.state import State
from charlm_server.engine.batch import PlacedSequence, RowBatch
from charlm_server.engine.caller_queues import CallerQueues
from charlm_server.engine.fair_sharing import RowAssignment, assign_rows, lenders
from charlm_server.engine.sequence import Sequence, SequenceStatus

FINISHED = SequenceStatus.FINISHED


class Placement:
    """Moves sequences into rows and out of them; their output does not depend on it."""

    def __init__(self, batch: RowBatch, clock: Callable[[], float]) -> None:
        self._batch, self._clock = batch, clock
        self._ready: CallerQueues[PlacedSequence] = CallerQueues(
            lambda placed: placed.sequence.status is FINISHED
        )
        self.parked: list[PlacedSequence] = []  # until their clients catch up

    @property
    def can_go_on(self) -> bool:
        """Whether a sequence outside the batch can go on without waiting for its client."""
        return bool(self._ready) or any(_has_room(parked) for parked in self.parked)

    def drop_over(self) -> None:
        """Remove finished sequences; those in rows only once the backlog is empty."""
        if not self._batch.backlog:
            self._batch.remove({live for live in self._batch.sequences if live.status is FINISHED})
        self.parked = [placed for placed in self.parked if placed.sequence.status is not FINISHED]

    def add_read(self, sequences: list[Sequence], state: State | None, logits_1V: Tensor) -> None:
        """Sequences whose prompt is read. Several share the state; a single one is lent it."""
        assert state is not None
        is_lent = len(sequences) == 1
        state = state if is_lent else state.clone()
        for sequence in sequences:
            sequence.job.prefilled_at = self._clock()
            if sequence.end_state is not None:
                sequence.end_state.keep(sequence.num_sampled, state, logits_1V)
            placed = PlacedSequence(sequence, state, logits_1V, is_lent=is_lent)
            self._ready.add(sequence.job.caller, placed)

    def place_ready(self, hand_over_all: Callable[[], None]) -> int:
        """Give rows, free or lent, to ready sequences; returns to how many.

        They are the last rows of the batch. `hand_over_all` is called before a row is lent: it
        hands over what all rows sampled and removes finished and slow ones.
        """
        if not self._ready:
            return 0
        assigned = self._deal()
        if assigned.lent:
            hand_over_all()
            assigned = self._deal()
        granted = self._ready.take(assigned.granted)
        lent = lenders(
            assigned.lent,
            self._batch.sequences,
            caller_of=lambda live: live.job.caller,
            num_left=lambda live: live.num_missing,
        )
        for placed in self._take_out(lent, SequenceStatus.WAITING):
            self._ready.add_first(placed.sequence.job.caller, placed)
        if granted:
            self._batch.join(granted)
        for placed in self._ready:
            placed.keep()
        return len(granted)

    def park_slow(self) -> None:
        """Backpressure: rows whose client reads too slowly leave the batch with their state."""
        self.parked += self._take_out(
            [live for live in self._batch.sequences if live.job.output.is_full],
            SequenceStatus.PARKED,
        )

    def unpark(self) -> None:
        """Sequences whose clients have caught up are ready again, before others."""
        asked = [(parked, _has_room(parked)) for parked in self.parked]  # clients read meanwhile
        for parked in reversed([parked for parked, has_room in asked if has_room]):
            parked.sequence.move_to(SequenceStatus.WAITING)
            self._ready.add_first(parked.sequence.job.caller, parked)
        self.parked = [parked for parked, has_room in asked if not has_room]

    def _deal(self) -> RowAssignment:
        held = Counter(live.job.caller for live in self._batch.sequences)
        return assign_rows(held, self._ready.lengths(), self._batch.num_free)

    def _take_out(self, leaving: list[Sequence], status: SequenceStatus) -> list[PlacedSequence]:
        placed = [self._batch.take_out(sequence) for sequence in leaving]
        for sequence in leaving:
            sequence.move_to(status)
        self._batch.remove(set(leaving))
        return placed


def _has_room(placed: PlacedSequence) -> bool:
    return placed.sequence.job.output.has_room
