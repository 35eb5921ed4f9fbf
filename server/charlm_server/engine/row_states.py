"""Memory for the states of a changing number of rows."""

from charlm_model.language_model import LanguageModel
from charlm_model.state import State


class RowStates:
    """States of rows, which stay in place while later rows come and go.

    Memory is kept when rows become fewer: allocating costs more than writing.
    """

    def __init__(self, model: LanguageModel, num_rows: int) -> None:
        self._model = model
        self.state = self._largest = model.initial_state(num_rows)
        self._unread = model.initial_state(1)

    def __len__(self) -> int:
        return self.state.batch_size

    def row(self, row: int) -> State:
        """One row, in this memory: clone it to keep it for longer."""
        return self.state.rows(row, row + 1)

    def put(self, row: int, other: State | None) -> None:
        """Write over a row: with the one row of another state, or the start of a text."""
        self._model.put_row(self.state, row, self._unread if other is None else other)

    def resize(self, num_rows: int) -> None:
        """Make it so many rows; new ones are at the start of a text."""
        before = len(self)
        if not self.state.begins_in(self._largest):  # the model answers with memory of its own
            self._largest = self.state
        if num_rows <= before:
            self.state = self.state.rows(0, num_rows)
        elif num_rows <= self._largest.batch_size:
            self.state = self._largest.rows(0, num_rows)
            for row in range(before, num_rows):
                self.put(row, None)
        else:
            grown = self._model.initial_state(num_rows)
            for row in range(before):
                self._model.put_row(grown, row, self.row(row))
            self.state = self._largest = grown
