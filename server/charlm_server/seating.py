"""Who has a row and who waits beside the batch with its state: ready <-> batch <-> parked."""

from collections import Counter

from charlm_server.batch import PlacedSequence, RowBatch
from charlm_server.sequence import Sequence
from charlm_server.shares import Deal, deal


class Seating:
    """Moves sequences into rows and out of them; what they say is the same wherever they were."""

    def __init__(self, batch: RowBatch) -> None:
        self._batch = batch
        self.ready: list[PlacedSequence] = []
        self.parked: list[PlacedSequence] = []  # until their readers catch up

    @property
    def seated(self) -> Counter[str]:
        """Rows by caller."""
        return Counter(live.job.caller for live in self._batch.sequences)

    @property
    def can_go_on(self) -> bool:
        """Whether one of those that wait beside the batch need not wait for its reader."""
        return bool(self.ready) or any(_has_room(parked) for parked in self.parked)

    def drop_over(self) -> None:
        """Forget whoever ended or is listened to no more."""
        self._batch.remove({live for live in self._batch.sequences if live.is_over})
        self.parked = [placed for placed in self.parked if not placed.sequence.is_over]

    def must_lend(self) -> bool:
        """Whether a row is to leave for one that is ready; its tokens must be told before."""
        self.ready = [placed for placed in self.ready if not placed.sequence.is_over]
        return bool(self.ready and self._deal().lent)

    def seat(self) -> int:
        """Give rows to who is ready, those that are lent among them; returns to how many.

        They are the last rows of the batch.
        """
        if not self.ready:
            return 0
        dealt = self._deal()
        newcomers = [self.ready[place] for place in dealt.newcomers]
        left = sorted(set(range(len(self.ready))) - set(dealt.newcomers))
        self.ready = [self.ready[place] for place in left] + self._take_out(self._lent(dealt))
        if newcomers:
            self._batch.join(newcomers)
        return len(newcomers)

    def park_slow(self) -> None:
        """Rows whose reader is too far behind leave the batch; their state waits with them."""
        self.parked += self._take_out(
            [live for live in self._batch.sequences if live.job.output.is_full]
        )

    def unpark(self) -> None:
        """Those whose readers have caught up are ready, before others."""
        asked = [(parked, _has_room(parked)) for parked in self.parked]  # readers run meanwhile
        self.ready[:0] = [parked for parked, has_room in asked if has_room]
        self.parked = [parked for parked, has_room in asked if not has_room]

    def _deal(self) -> Deal:
        callers = [placed.sequence.job.caller for placed in self.ready]
        return deal(self.seated, callers, self._batch.num_free)

    def _lent(self, dealt: Deal) -> list[Sequence]:
        """Of each caller so many rows as it lends, those furthest from their ends."""
        leaving: list[Sequence] = []
        for caller, num in dealt.lent.items():
            own = [live for live in self._batch.sequences if live.job.caller == caller]
            leaving += sorted(own, key=lambda live: -live.num_missing)[:num]
        return leaving

    def _take_out(self, leaving: list[Sequence]) -> list[PlacedSequence]:
        placed = [self._batch.take_out(sequence) for sequence in leaving]
        self._batch.remove(set(leaving))
        return placed


def _has_room(placed: PlacedSequence) -> bool:
    return placed.sequence.job.output.has_room
