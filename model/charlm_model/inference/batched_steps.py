"""Runs any number of rows through the exact path, in batches of verified sizes.

Legend: B rows, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from charlm_model.language_model import LanguageModel
from charlm_model.state import State, concat_rows


@dataclass(frozen=True, slots=True)
class Stepper:
    """Advances any number of rows with the bits that each has alone (batch invariance).

    Like the exact path it may reuse the storage of the given state; clone a state to keep it.
    """

    model: LanguageModel
    sizes: Sequence[int]

    def step(self, ids: Sequence[int], state: State) -> tuple[Tensor, State]:
        """One token for each row of the state: logits (B, V) and the state after it."""
        logits_B1V, state = self.advance([[token_id] for token_id in ids], state)
        return logits_B1V[:, 0], state

    def advance(self, ids_BT: Sequence[Sequence[int]], state: State) -> tuple[Tensor, State]:
        """The same number of tokens for each row: logits (B, T, V) and the state after them."""
        if len(ids_BT) in self.sizes:
            return self.model.advance(torch.tensor([list(ids) for ids in ids_BT]), state)
        logits, states = [], []
        for rows, size in self._batches(len(ids_BT)):
            padding = size - len(rows)
            ids = torch.tensor(
                [*(list(ids_BT[row]) for row in rows), *[[0] * len(ids_BT[0])] * padding]
            )
            padded = state.select_rows([*rows, *[rows[0]] * padding])
            logits_bTV, after = self.model.advance(ids, padded)
            logits.append(logits_bTV[: len(rows)])
            states.append(after.select_rows(range(len(rows))))
        return torch.cat(logits), concat_rows(states)

    def _batches(self, num_rows: int) -> Iterator[tuple[range, int]]:
        """Ranges of rows, and the batch size for each."""
        largest = max(self.sizes)
        for first in range(0, num_rows, largest):
            rows = range(first, min(first + largest, num_rows))
            yield rows, min(size for size in self.sizes if size >= len(rows))
