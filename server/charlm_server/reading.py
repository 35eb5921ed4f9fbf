"""Feeding known tokens to the model: prompts before decoding, and texts to be scored.

Legend: B rows, T tokens, V vocabulary.
"""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from charlm_model.language_model import LanguageModel
from charlm_model.snapshot import Snapshot
from charlm_model.state import State, concat_rows

MAX_LOGITS = 1 << 21  # of one chunk, over rows, tokens and vocabulary: 16 MB in float64


class Reader(Protocol):
    """Someone with tokens to read, at least one where it begins with no snapshot."""

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def snapshot(self) -> Snapshot | None:
        """What was read before; None is the start of a text."""
        ...

    @property
    def is_over(self) -> bool:
        """Nobody waits for it any more."""
        ...

    def accept(self, logits_TV: Tensor, start: int) -> None:
        """Take the logits of what follows each of ids[start], ids[start + 1], ...

        A snapshot's own come first, with a start of -1: they are of ids[0].
        """
        ...

    def done(self, state: State | None, logits_1V: Tensor) -> None:
        """All is read; the state is None where the lane does not keep it."""
        ...


class ReadingLane:
    """Reads many texts together, a bounded chunk at a time.

    With `keeps_state` a chunk ends where the shortest text does, so that its state is exact there;
    without, shorter rows run on over padding and only their results are cut.
    """

    def __init__(self, model: LanguageModel, sizes: list[int], *, keeps_state: bool) -> None:
        self._model = model
        self._sizes = sorted(sizes)
        self._keeps_state = keeps_state
        self._waiting: deque[Reader] = deque()
        self._readers: list[Reader] = []
        self._num_read: list[int] = []
        self._state = model.initial_state(self._sizes[0])

    @property
    def num_readers(self) -> int:
        """Those with something left to read, and those that wait for a row."""
        reading = (self._is_reading(row, reader) for row, reader in enumerate(self._readers))
        return sum(reading) + len(self._waiting)

    @property
    def longest_left(self) -> int:
        """Most tokens that a reader has before it, of those in rows and of those that wait."""
        reading = zip(self._readers, self._num_read, strict=True)
        left = [len(reader.ids) - num_read for reader, num_read in reading]
        return max([*left, *(len(reader.ids) for reader in self._waiting)], default=0)

    def add(self, reader: Reader) -> None:
        self._waiting.append(reader)

    def read_chunk(self, max_steps: int) -> int:
        """Read on by one chunk; returns how many tokens of each row were read."""
        self._regroup()
        if not self._readers:
            return 0
        num_steps = self._chunk_length(max_steps)
        ids_BT = torch.tensor(self._padded_ids(num_steps), dtype=torch.int64)
        logits_BTV, self._state = self._model.advance(ids_BT, self._state)
        for row, reader in enumerate(self._readers):
            self._advance_reader(row, reader, logits_BTV[row])
        return num_steps

    def _regroup(self) -> None:
        """Drop who has read all or is gone, let others in; fresh rows start from the beginning."""
        kept = [row for row, reader in enumerate(self._readers) if self._is_reading(row, reader)]
        newcomers = self._newcomers(self._sizes[-1] - len(kept))
        if len(kept) == len(self._readers) and not newcomers:
            return
        self._readers = [self._readers[row] for row in kept] + newcomers
        self._num_read = [self._num_read[row] for row in kept] + [0] * len(newcomers)
        size = next(size for size in self._sizes if size >= len(self._readers))
        fresh = self._fresh(size - len(kept), newcomers) if size > len(kept) else None
        old = self._state.select_rows(kept) if kept else None
        states = [state for state in (old, fresh) if state is not None]
        self._state = states[0] if len(states) == 1 else concat_rows(states)

    def _fresh(self, num_rows: int, newcomers: list[Reader]) -> State:
        """Rows for newcomers, and after them for nobody."""
        fresh = self._model.initial_state(num_rows)
        for row, reader in enumerate(newcomers):
            if reader.snapshot is not None:
                fresh.put_rows([row], reader.snapshot.state)
        return fresh

    def _is_reading(self, row: int, reader: Reader) -> bool:
        return not reader.is_over and self._num_read[row] < len(reader.ids)

    def _newcomers(self, num_free: int) -> list[Reader]:
        newcomers: list[Reader] = []
        while self._waiting and len(newcomers) < num_free:
            reader = self._waiting.popleft()
            if not reader.is_over and self._begin(reader):
                newcomers.append(reader)
        return newcomers

    def _begin(self, reader: Reader) -> bool:
        """Hand it what its snapshot expects next; whether there is anything left to read."""
        snapshot = reader.snapshot
        if snapshot is None:
            return True
        reader.accept(snapshot.pending_logits_1V, -1)
        if not reader.ids:
            state = snapshot.state.clone() if self._keeps_state else None
            reader.done(state, snapshot.pending_logits_1V.clone())
        return bool(reader.ids)

    def _chunk_length(self, max_steps: int) -> int:
        remaining = [
            len(reader.ids) - num_read
            for reader, num_read in zip(self._readers, self._num_read, strict=True)
        ]
        wanted = min(remaining) if self._keeps_state else max(remaining)
        bound = MAX_LOGITS // (self._state.batch_size * self._model.config.vocab_size)
        return max(1, min(wanted, max_steps, bound))

    def _padded_ids(self, num_steps: int) -> list[list[int]]:
        rows = [
            list(reader.ids[num_read : num_read + num_steps])
            for reader, num_read in zip(self._readers, self._num_read, strict=True)
        ]
        rows += [[]] * (self._state.batch_size - len(rows))
        return [row + [0] * (num_steps - len(row)) for row in rows]

    def _advance_reader(self, row: int, reader: Reader, logits_TV: Tensor) -> None:
        start = self._num_read[row]
        num_new = min(len(logits_TV), len(reader.ids) - start)
        self._num_read[row] += num_new
        reader.accept(logits_TV[:num_new], start)
        if self._num_read[row] == len(reader.ids):
            state = self._state.select_rows([row]) if self._keeps_state else None
            reader.done(state, logits_TV[num_new - 1 : num_new].clone())
