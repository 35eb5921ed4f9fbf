"""Tokens that rows have sampled and that are not yet handed to their sequences.

Legend: B rows, K steps.
"""

from collections.abc import Iterator
from itertools import groupby

import numpy as np

from charlm_model.language_model import Burst
from charlm_server.engine.token_columns import TokenColumns, concat_columns

Sampled = Burst | list[TokenColumns]  # of the first rows of a batch, a number of steps of each


class Backlog:
    """Collects tokens, because handing one over costs as much as sampling some.

    Rows are numbered as in their batch. Rows that joined later have fewer tokens.
    """

    def __init__(self) -> None:
        self._parts: list[Sampled] = []

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, sampled: Sampled) -> None:
        self._parts.append(sampled)

    def take(self, first_row: int = 0) -> list[TokenColumns]:
        """Remove and return the tokens of each row from `first_row` on."""
        parts_of: list[list[TokenColumns]] = []
        for part in _joined(self._parts):
            rows = _columns(part)[first_row:]
            parts_of += [[] for _ in range(len(rows) - len(parts_of))]
            for parts, columns in zip(parts_of, rows, strict=False):
                parts.append(columns)
        self._parts = [_first_rows(part, first_row) for part in self._parts] if first_row else []
        return [concat_columns(parts) for parts in parts_of]


def _joined(parts: list[Sampled]) -> Iterator[Sampled]:
    """The same, with neighbors of equal rows in one."""
    for num_rows, group in groupby(parts, _num_rows_of_burst):
        if not num_rows:
            yield from group
            continue
        ids_BK, logprobs_BK = (np.concatenate(each, axis=1) for each in zip(*group, strict=True))
        yield Burst(ids_BK, logprobs_BK)


def _num_rows_of_burst(part: Sampled) -> int:
    return len(part.ids_BK) if isinstance(part, Burst) else 0


def _columns(part: Sampled) -> list[TokenColumns]:
    if not isinstance(part, Burst):
        return part
    return [
        TokenColumns(ids_T=ids_K, logprobs_T=logprobs_K, sampling_logprobs_T=logprobs_K)
        for ids_K, logprobs_K in zip(*part, strict=True)
    ]


def _first_rows(part: Sampled, num: int) -> Sampled:
    return (
        Burst(part.ids_BK[:num], part.logprobs_BK[:num]) if isinstance(part, Burst) else part[:num]
    )
