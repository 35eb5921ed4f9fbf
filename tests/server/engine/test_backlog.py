"""A backlog returns every row's tokens once and in order, while rows join and are taken."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from charlm_model.language_model import Burst
from charlm_server.engine.backlog import Backlog, Sampled
from charlm_server.engine.token_columns import TokenColumns

Move = tuple[
    int, int, bool, bool
]  # rows that join, steps, whether details, whether those of joining rows are taken


def sampled(first_ids: list[int], num_steps: int, *, has_details: bool) -> Sampled:
    """Of each row so many ids in order, from its first one on."""
    ids_BK = np.array(first_ids, np.int64)[:, None] + np.arange(num_steps)
    logprobs_BK = -ids_BK.astype(np.float32)
    if not has_details:
        return Burst(ids_BK, logprobs_BK)
    return [
        TokenColumns(ids_T=ids_K, logprobs_T=logprobs_K, sampling_logprobs_T=logprobs_K)
        for ids_K, logprobs_K in zip(ids_BK, logprobs_BK, strict=True)
    ]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 5), st.booleans(), st.booleans()), max_size=12
    )
)
def test_every_row_gets_its_tokens_once_and_in_order(moves: list[Move]) -> None:
    backlog = Backlog()
    next_ids: list[int] = []  # by row
    received: list[list[int]] = []

    def take(first_row: int) -> None:
        for row, columns in enumerate(backlog.take(first_row), first_row):
            received[row] += columns.ids_T.tolist()
            assert (columns.logprobs_T == -columns.ids_T).all()

    for num_joining, num_steps, has_details, takes_newcomers in moves:
        first_row = len(next_ids)
        next_ids += [100 * (first_row + each) for each in range(num_joining)]
        received += [[] for _ in range(num_joining)]
        if next_ids:
            backlog.add(sampled(next_ids, num_steps, has_details=has_details))
        next_ids = [each + num_steps for each in next_ids]
        if takes_newcomers and first_row:
            take(first_row)
    take(0)

    assert not backlog
    assert received == [list(range(100 * row, last)) for row, last in enumerate(next_ids)]


def test_an_empty_backlog_has_no_tokens() -> None:
    assert Backlog().take() == []
