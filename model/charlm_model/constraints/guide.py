"""The progress of one output through its constraint: the allowed next tokens, and the end.

Legend: B rows, V vocabulary; logprobs are natural logarithms.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from charlm_model import exact_math
from charlm_model.constraints.constraint import Constraint
from charlm_model.constraints.dfa import DEAD
from charlm_model.constraints.token_spelling import FAR
from charlm_model.sampling.processors import Floats, Mask
from charlm_model.text.vocabulary import END_OF_TEXT_ID


class Guide:
    """Allows the tokens after which the output can still match.

    With `fits_length` it can do so within `max_new_tokens`, so that an output cut off by its length
    matches too. `completed_at` is the number of tokens after which nothing more could follow.
    """

    def __init__(
        self,
        constraint: Constraint,
        max_new_tokens: int,
        *,
        ignores_end_of_text: bool = False,
        fits_length: bool = True,
    ) -> None:
        self.constraint = constraint
        self.state = constraint.start
        # The fewest tokens that a match still needs.
        self.num_missing = constraint.missing(constraint.start)
        self.num_taken = 0
        self.completed_at: int | None = None
        self._max_new_tokens = max_new_tokens
        self._ignores_end_of_text = ignores_end_of_text
        self._fits_length = fits_length
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether the output has ended: by an end of text, the constraint or the length."""
        return self._is_over or self.num_taken >= self._max_new_tokens

    def end(self) -> None:
        """End the output from outside."""
        self._is_over = True

    @property
    def is_accepting(self) -> bool:
        """Whether the output so far matches."""
        return self.state != DEAD and self.constraint.is_accepting(self.state)

    @property
    def allowed_V(self) -> Mask | None:
        """The allowed next tokens; None after the end."""
        if self.is_over:
            return None
        most_missing = self._buffer
        row = self.constraint.row(self.state)
        allowed_V: Mask = row.missing_V < most_missing
        if self._ignores_end_of_text:
            allowed_V[END_OF_TEXT_ID] = self.num_missing < most_missing
        return allowed_V

    @property
    def _buffer(self) -> int:
        """The most tokens that a match may still need."""
        return self._max_new_tokens - self.num_taken if self._fits_length else FAR

    def take(self, token_id: int) -> None:
        """Add a token. One that is not allowed leads to the dead state."""
        if self._is_over:
            return
        self.num_taken += 1
        if token_id == END_OF_TEXT_ID and not self._ignores_end_of_text:
            self._is_over = True
            return
        if token_id != END_OF_TEXT_ID:  # an ignored end of text adds no text
            row = self.constraint.row(self.state)
            self.state = int(row.next_V[token_id])
            self.num_missing = int(row.missing_V[token_id])
        if self.state == DEAD or self.num_missing > self._buffer:
            self._is_over, self.state = True, DEAD
        elif self.constraint.is_complete(self.state):
            self._is_over, self.completed_at = True, self.num_taken


def masked(logprobs_BV: Floats, allowed_BV: Mask) -> tuple[Floats, Floats]:
    """The distributions restricted to the allowed tokens, and the log-masses these had.

    Each row must allow a token with a positive probability.
    """
    kept_BV = np.where(allowed_BV, logprobs_BV, -np.inf)
    log_masses_B1 = exact_math.log_row_sums_of_exp(kept_BV)
    # Rounding may raise one above 0 where almost nothing is excluded.
    return kept_BV - log_masses_B1, np.minimum(log_masses_B1[:, 0], 0.0)


def guided(
    logprobs_BV: Floats, guides_B: Sequence[Guide | None]
) -> tuple[Floats, NDArray[np.float64]]:
    """The masked rows and their log-masses; rows without a guide keep their bits."""
    log_masses_B = np.zeros(len(guides_B))
    allowed = {
        row: allowed_V
        for row, guide in enumerate(guides_B)
        if guide is not None and (allowed_V := guide.allowed_V) is not None
    }
    if not allowed:
        return logprobs_BV, log_masses_B
    rows = list(allowed)
    result_BV = logprobs_BV.copy()
    result_BV[rows], log_masses_B[rows] = masked(logprobs_BV[rows], np.stack([*allowed.values()]))
    return result_BV, log_masses_B
