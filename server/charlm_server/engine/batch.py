"""The rows that are decoded together: their sequences, states and pending logits.

Legend: B rows, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm_model.language_model import Burst, LanguageModel
from charlm_model.sampling.philox import Counters, Words
from charlm_model.state import State
from charlm_model.tensor_memory import clone, copy, zeros
from charlm_server.engine.backlog import Backlog
from charlm_server.engine.row_states import RowStates
from charlm_server.engine.sequence import Sequence, SequenceStatus


@dataclass(slots=True, eq=False)
class PlacedSequence:
    """A sequence with the state after all it has read, and the logits of what comes next.

    Together they are all that is needed to go on, in this batch or in another.
    """

    sequence: Sequence
    state: State  # one row
    logits_1V: Tensor
    is_lent: bool = False
    """Whether the state lies in memory that will soon be overwritten."""

    def keep(self) -> None:
        """Copy a lent state, to wait for longer."""
        if self.is_lent:
            self.state, self.is_lent = self.state.clone(), False


class RowBatch:
    """Live rows are always the first ones; the rest pad the batch to a batch-invariant size.

    Rows enter in `join` and leave in `remove`, and nowhere else. Padding rows compute values that
    are not used: in a batch-invariant size each row has the bits that it has alone.

    Sampled tokens stay in the backlog until they are taken; rows leave only after that.
    """

    def __init__(self, model: LanguageModel, sizes: list[int]) -> None:
        self._model = model
        self._sizes = sorted(sizes)
        self.sequences: list[Sequence] = []
        self.backlog = Backlog()
        self.is_plain = True  # all rows sample from the model's own distribution
        self.returns_states = False  # some rows must hand over the state at their end
        self.counters = _counters_of([])  # of the next token of each live row
        self._missing_B = _missing_of([])  # tokens that each live row may still sample
        self._row_states = RowStates(model, self._sizes[0])
        self._logits_BV = torch.zeros(self._sizes[0], model.config.vocab_size)

    @property
    def capacity(self) -> int:
        return self._sizes[-1]

    @property
    def num_free(self) -> int:
        return self.capacity - len(self.sequences)

    @property
    def num_missing(self) -> int:
        """Tokens that the row furthest from its end may still sample."""
        return int(self._missing_B.max(initial=0))

    @property
    def num_complete(self) -> int:
        """Rows that have all the tokens they may take."""
        return int((self._missing_B <= 0).sum())

    @property
    def logits_BV(self) -> Tensor:
        """The pending logits of the live rows; overwritten by the next step."""
        return self._logits_BV[: len(self.sequences)]

    def join(self, joining: list[PlacedSequence]) -> None:
        first = len(self.sequences)
        sequences = [placed.sequence for placed in joining]
        self.sequences += sequences
        for sequence in sequences:
            sequence.move_to(SequenceStatus.RUNNING)
        self.counters = Counters(*map(np.append, self.counters, _counters_of(sequences)))
        self._missing_B = np.append(self._missing_B, _missing_of(sequences))
        self.is_plain = self.is_plain and all(sequence.is_plain for sequence in sequences)
        self.returns_states |= any(each.end_state is not None for each in sequences)
        self._grow(len(self.sequences))
        for row, placed in enumerate(joining, first):
            self._row_states.put(row, placed.state)
        self._logits_BV[first : len(self.sequences)] = torch.cat(
            [placed.logits_1V for placed in joining]
        )

    def keep_states(self) -> None:
        """Let the sequences that return the state at their end keep some on the way."""
        if not self.returns_states:
            return
        for row, live in enumerate(self.sequences):
            position = int(self.counters.positions_B[row])
            if live.end_state is not None and live.end_state.wants(position):
                live.end_state.keep(
                    position, self._row_states.row(row), self._logits_BV[row : row + 1]
                )

    def take_out(self, sequence: Sequence) -> PlacedSequence:
        """A copy of a row, to go on from later; the row itself is still there."""
        row = self.sequences.index(sequence)
        logits_1V = self._logits_BV[row : row + 1].clone()
        return PlacedSequence(sequence, self._row_states.row(row).clone(), logits_1V)

    def remove(self, leavers: set[Sequence]) -> None:
        """Close the gaps with the last live rows, then shrink if a smaller size will do."""
        if not leavers:
            return
        assert not self.backlog, "rows move, and their tokens would not"
        kept = [row for row, live in enumerate(self.sequences) if live not in leavers]
        holes = [row for row in range(len(kept)) if self.sequences[row] in leavers]
        movers = [row for row in kept if row >= len(kept)]
        for hole, mover in zip(holes, movers, strict=True):
            self._row_states.put(hole, self._row_states.row(mover))
            self._logits_BV[hole] = self._logits_BV[mover]
            self.sequences[hole] = self.sequences[mover]
        del self.sequences[len(kept) :]
        self.counters = _counters_of(self.sequences)
        self._missing_B = _missing_of(self.sequences)
        self.is_plain = all(sequence.is_plain for sequence in self.sequences)
        self.returns_states = any(each.end_state is not None for each in self.sequences)
        self._shrink(len(kept))

    def sample(self, num_steps: int) -> None:
        """Tokens of each live row from the model's own distribution, all steps in one call."""
        rows = len(self.sequences)
        padded = Counters(*(_padded(column_B, self._size) for column_B in self.counters))
        burst, self._logits_BV, self._row_states.state = self._model.sample(
            self._logits_BV, self._row_states.state, padded, num_steps
        )
        self._count(num_steps)
        self.backlog.add(Burst(burst.ids_BK[:rows], burst.logprobs_BK[:rows]))

    def step(self, ids: list[int]) -> None:
        """Feed each live row its token; its next logits become the pending ones."""
        padding = [0] * (self._size - len(ids))
        self._logits_BV, self._row_states.state = self._model.step(
            torch.tensor(ids + padding, dtype=torch.int64), self._row_states.state
        )
        self._count(1)

    def _count(self, num_steps: int) -> None:
        positions_B = self.counters.positions_B + np.uint64(num_steps)
        self.counters = self.counters._replace(positions_B=positions_B)
        self._missing_B -= num_steps

    @property
    def _size(self) -> int:
        return len(self._logits_BV)

    def _grow(self, num_rows: int) -> None:
        size = next(size for size in self._sizes if size >= num_rows)
        if size > self._size:
            self._row_states.resize(size)
            before_BV = self._logits_BV
            shape = size, before_BV.shape[1]
            self._logits_BV = zeros(shape, before_BV.dtype, before_BV.device)
            copy(self._logits_BV[: len(before_BV)], before_BV)

    def _shrink(self, num_rows: int) -> None:
        # A quarter of slack, so that one row coming and going does not copy the batch each time.
        roomy = (size for size in self._sizes if num_rows <= size - size // 4)
        size = next(roomy, self.capacity)
        if size < self._size:
            self._row_states.resize(size)
            self._logits_BV = clone(self._logits_BV[:size])


def _counters_of(sequences: list[Sequence]) -> Counters:
    """Before anything of theirs is in a backlog."""
    return Counters(
        np.array([sequence.job.seed for sequence in sequences], np.uint64),
        np.array([sequence.index for sequence in sequences], np.uint64),
        np.array([sequence.num_sampled for sequence in sequences], np.uint64),
    )


def _missing_of(sequences: list[Sequence]) -> NDArray[np.int64]:
    return np.array([sequence.num_missing for sequence in sequences], np.int64)


def _padded(column_B: Words, size: int) -> Words:
    padded_B = np.zeros(size, np.uint64)
    padded_B[: len(column_B)] = column_B
    return padded_B
