"""The rows that are decoded together: who has which row, their state and their pending logits.

Legend: B rows, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from charlm_model.counter import Counters, Words
from charlm_model.language_model import Burst, LanguageModel
from charlm_model.state import State, concat_rows
from charlm_server.sequence import Sequence


@dataclass(frozen=True, slots=True)
class PlacedSequence:
    """A sequence with the state after all it has read, and the logits of what comes next.

    Together they are all that is needed to go on, in this batch or in another.
    """

    sequence: Sequence
    state: State  # one row
    logits_1V: Tensor


class RowBatch:
    """Live rows are always the first ones; the rest pad the batch to a certified size.

    Rows enter in `join` and leave in `remove`, and nowhere else. Padding rows compute garbage that
    nobody reads: a size that was certified gives each row the bits it would have alone.
    """

    def __init__(self, model: LanguageModel, sizes: list[int]) -> None:
        self._model = model
        self._sizes = sorted(sizes)
        self.sequences: list[Sequence] = []
        self._state = model.initial_state(self._sizes[0])
        self._logits_BV = torch.zeros(self._sizes[0], model.config.vocab_size)

    @property
    def capacity(self) -> int:
        return self._sizes[-1]

    @property
    def num_free(self) -> int:
        return self.capacity - len(self.sequences)

    @property
    def logits_BV(self) -> Tensor:
        """The pending logits of the live rows; overwritten by the next step."""
        return self._logits_BV[: len(self.sequences)]

    def join(self, newcomers: list[PlacedSequence]) -> None:
        first = len(self.sequences)
        self.sequences += [newcomer.sequence for newcomer in newcomers]
        self._grow(len(self.sequences))
        rows = list(range(first, len(self.sequences)))
        self._state.put_rows(rows, concat_rows([newcomer.state for newcomer in newcomers]))
        self._logits_BV[first : len(self.sequences)] = torch.cat(
            [newcomer.logits_1V for newcomer in newcomers]
        )

    def take_out(self, sequence: Sequence) -> PlacedSequence:
        """A copy of a row, to go on from later; the row itself is still there."""
        row = self.sequences.index(sequence)
        return PlacedSequence(
            sequence, self._state.select_rows([row]), self._logits_BV[row : row + 1].clone()
        )

    def remove(self, leavers: set[Sequence]) -> None:
        """Close the gaps with the last live rows, then shrink if a smaller size will do."""
        if not leavers:
            return
        kept = [row for row, live in enumerate(self.sequences) if live not in leavers]
        holes = [row for row in range(len(kept)) if self.sequences[row] in leavers]
        movers = [row for row in kept if row >= len(kept)]
        if movers:
            self._state.put_rows(holes, self._state.select_rows(movers))
            self._logits_BV[holes] = self._logits_BV[movers]
        for hole, mover in zip(holes, movers, strict=True):
            self.sequences[hole] = self.sequences[mover]
        del self.sequences[len(kept) :]
        self._shrink(len(kept))

    def sample(self, counters: Counters, num_steps: int) -> Burst:
        """Tokens of each live row from the model's own distribution, all steps in one call."""
        rows = len(self.sequences)
        padded = Counters(*(_padded(column, self._size) for column in counters))
        burst, self._logits_BV, self._state = self._model.sample(
            self._logits_BV, self._state, padded, num_steps
        )
        return Burst(burst.ids_BK[:rows], burst.logprobs_BK[:rows])

    def step(self, ids: list[int]) -> None:
        """Feed each live row its token; its next logits become the pending ones."""
        padding = [0] * (self._size - len(ids))
        self._logits_BV, self._state = self._model.step(
            torch.tensor(ids + padding, dtype=torch.int64), self._state
        )

    @property
    def _size(self) -> int:
        return len(self._logits_BV)

    def _grow(self, num_rows: int) -> None:
        size = next(size for size in self._sizes if size >= num_rows)
        if size > self._size:
            extra = size - self._size
            self._state = concat_rows([self._state, self._model.initial_state(extra)])
            padding_BV = self._logits_BV.new_zeros(extra, self._logits_BV.shape[1])
            self._logits_BV = torch.cat([self._logits_BV, padding_BV])

    def _shrink(self, num_rows: int) -> None:
        # A quarter of slack, so that one row coming and going does not copy the batch each time.
        roomy = (size for size in self._sizes if num_rows <= size - size // 4)
        size = next(roomy, self.capacity)
        if size < self._size:
            self._state = self._state.select_rows(list(range(size)))
            self._logits_BV = self._logits_BV[:size].clone()


def _padded(column_B: Words, size: int) -> Words:
    return np.pad(column_B, (0, size - len(column_B)))
