"""Feeding known tokens to the model: prompts before decoding, and texts to be scored.

Legend: B rows, T tokens, V vocabulary.
"""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from charlm_model.language_model import LanguageModel
from charlm_model.state import State
from charlm_server.engine.caller_queues import CallerQueues
from charlm_server.engine.fair_sharing import assign_rows, lenders
from charlm_server.engine.readers import Reader
from charlm_server.engine.row_states import RowStates

MAX_LOGITS = 1 << 21  # of one chunk, over rows, tokens and vocabulary: 16 MB in float64


@dataclass(slots=True, eq=False)
class PartialRead:
    """A reader, how many ids it has read, and the state there while it has no row."""

    reader: Reader
    caller: str
    num_read: int = 0
    state: State | None = None

    @property
    def num_left(self) -> int:
        return len(self.reader.ids) - self.num_read

    @property
    def is_reading(self) -> bool:
        return not self.reader.is_over and self.num_left > 0


class ReadingLane:
    """Reads many texts together, a bounded chunk at a time; callers share the rows.

    With `keeps_state` a chunk ends where the shortest text does, so that its state is exact there;
    without, shorter rows run on over padding and only their results are cut.
    """

    def __init__(self, model: LanguageModel, sizes: list[int], *, keeps_state: bool) -> None:
        self._model = model
        self._sizes = sorted(sizes)
        self._keeps_state = keeps_state
        self._waiting: CallerQueues[PartialRead] = CallerQueues(
            lambda reading: reading.reader.is_over
        )
        self._rows: list[PartialRead] = []
        self._row_states = RowStates(model, self._sizes[0])

    @property
    def num_readers(self) -> int:
        """Readers with something left to read, in rows or waiting."""
        return sum(reading.is_reading for reading in self._rows) + len(self._waiting)

    @property
    def longest_left(self) -> int:
        """Most tokens that any reader has left, in rows or waiting."""
        return max((reading.num_left for reading in [*self._rows, *self._waiting]), default=0)

    def add(self, reader: Reader, caller: str) -> None:
        self._waiting.add(caller, PartialRead(reader, caller))

    def read_chunk(self, max_steps: int) -> int:
        """Read on by one chunk; returns how many tokens of each row were read."""
        self._regroup()
        if not self._rows:
            return 0
        num_steps = self._chunk_length(max_steps)
        ids_BT = torch.tensor(self._padded_ids(num_steps), dtype=torch.int64)
        logits_BTV, self._row_states.state = self._model.advance(ids_BT, self._row_states.state)
        for row, reading in enumerate(self._rows):
            self._advance(row, reading, logits_BTV[row])
        return num_steps

    def _regroup(self) -> None:
        """Free the rows of readers that are done, and give rows to waiting ones."""
        kept = [row for row, reading in enumerate(self._rows) if reading.is_reading]
        granted = self._assign_rows(kept)
        if len(kept) == len(self._rows) and not granted:
            return
        self._rows = [self._rows[row] for row in kept] + granted
        for row, old_row in enumerate(kept):
            if row != old_row:
                self._row_states.put(row, self._row_states.row(old_row))
        for row in range(len(kept), len(self._row_states)):
            self._row_states.put(row, None)
        self._row_states.resize(next(size for size in self._sizes if size >= len(self._rows)))
        for row, reading in enumerate(granted, len(kept)):
            if reading.state is not None:
                self._row_states.put(row, reading.state)
                reading.state = None

    def _assign_rows(self, kept: list[int]) -> list[PartialRead]:
        """Readers that get a row now; rows that are lent leave `kept`, and their readers wait."""
        held = Counter(self._rows[row].caller for row in kept)
        assigned = assign_rows(held, self._waiting.lengths(), self._sizes[-1] - len(kept))
        granted = self._waiting.take(assigned.granted)
        lent = lenders(
            assigned.lent,
            kept,
            caller_of=lambda row: self._rows[row].caller,
            num_left=lambda row: self._rows[row].num_left,
        )
        for row in lent:
            reading = self._rows[row]
            reading.state = self._row_states.row(row).clone()
            self._waiting.add_first(reading.caller, reading)
            kept.remove(row)
        return [reading for reading in granted if self._begin(reading)]

    def _begin(self, reading: PartialRead) -> bool:
        """Give a reader its snapshot's state and logits; whether it has ids to read."""
        reader, snapshot = reading.reader, reading.reader.snapshot
        if reader.is_over or snapshot is None or reading.num_read:
            return not reader.is_over
        reading.state = snapshot.state.to(self._model.device)
        reader.accept(snapshot.pending_logits_1V, -1)
        if not reader.ids:
            state = reading.state.clone() if self._keeps_state else None
            reader.done(state, snapshot.pending_logits_1V.clone())
        return bool(reader.ids)

    def _chunk_length(self, max_steps: int) -> int:
        left = [reading.num_left for reading in self._rows]
        wanted = min(left) if self._keeps_state else max(left)
        bound = MAX_LOGITS // (len(self._row_states) * self._model.config.vocab_size)
        return max(1, min(wanted, max_steps, bound))

    def _padded_ids(self, num_steps: int) -> list[list[int]]:
        starts = ((reading.reader.ids, reading.num_read) for reading in self._rows)
        rows = [list(ids[num_read : num_read + num_steps]) for ids, num_read in starts]
        rows += [[]] * (len(self._row_states) - len(rows))
        return [row + [0] * (num_steps - len(row)) for row in rows]

    def _advance(self, row: int, reading: PartialRead, logits_TV: Tensor) -> None:
        reader, start = reading.reader, reading.num_read
        num_new = min(len(logits_TV), reading.num_left)
        reading.num_read += num_new
        reader.accept(logits_TV[:num_new], start)
        if not reading.num_left:
            state = self._row_states.row(row) if self._keeps_state else None
            reader.done(state, logits_TV[num_new - 1 : num_new].clone())
