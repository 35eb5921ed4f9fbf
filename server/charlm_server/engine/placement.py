"""Who has a row and who waits beside the batch with its state: ready <-> batch <-> parked."""

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
    """Moves sequences into rows and out of them; what they say is the same wherever they were."""

    def __init__(self, batch: RowBatch, clock: Callable[[], float]) -> None:
        self._batch, self._clock = batch, clock
        self._ready: CallerQueues[PlacedSequence] = CallerQueues(
            lambda placed: placed.sequence.status is FINISHED
        )
        self.parked: list[PlacedSequence] = []  # until their readers catch up

    @property
    def can_go_on(self) -> bool:
        """Whether one of those that wait beside the batch need not wait for its reader."""
        return bool(self._ready) or any(_has_room(parked) for parked in self.parked)

    def drop_over(self) -> None:
        """Forget whoever ended or is listened to no more; rows when all they sampled is told."""
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

    def place_ready(self, tell_all: Callable[[], None]) -> int:
        """Give rows to who is ready, those that are lent among them; returns to how many.

        They are the last rows of the batch. `tell_all` hands over what all rows sampled: it is
        called before one leaves, and whoever ended or reads too slowly leaves with it.
        """
        if not self._ready:
            return 0
        assigned = self._deal()
        if assigned.lent:
            tell_all()
            assigned = self._deal()
        newcomers = self._ready.take(assigned.granted)
        lent = lenders(
            assigned.lent,
            self._batch.sequences,
            caller_of=lambda live: live.job.caller,
            num_left=lambda live: live.num_missing,
        )
        for placed in self._take_out(lent, SequenceStatus.WAITING):
            self._ready.add_first(placed.sequence.job.caller, placed)
        if newcomers:
            self._batch.join(newcomers)
        for placed in self._ready:
            placed.keep()
        return len(newcomers)

    def park_slow(self) -> None:
        """Rows whose reader is too far behind leave the batch; their state waits with them."""
        self.parked += self._take_out(
            [live for live in self._batch.sequences if live.job.output.is_full],
            SequenceStatus.PARKED,
        )

    def unpark(self) -> None:
        """Those whose readers have caught up are ready, before others."""
        asked = [(parked, _has_room(parked)) for parked in self.parked]  # readers run meanwhile
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
