"""The input of a step: embeddings of the token, of earlier tokens, and of the pair."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from charlm_model.layers.embedding import NO_TOKEN, TokenEmbedding

V, E = 7, 5


def embedding(kernel_size: int = 1, pair_rows: int = 0) -> TokenEmbedding:
    torch.manual_seed(0)
    made = TokenEmbedding(V, E, kernel_size=kernel_size, pair_rows=pair_rows)
    if pair_rows:
        torch.nn.init.normal_(made.pairs)
    return made


def test_the_kernel_is_a_causal_convolution_over_one_hot_tokens() -> None:
    made = embedding(kernel_size=4)
    ids_BT = torch.randint(0, V, (3, 11))
    newest_first = [made.weight, *made.earlier.split(V)]
    kernel_EVK = torch.stack(newest_first[::-1], -1).transpose(0, 1)
    one_hot_BVT = F.one_hot(ids_BT, V).float().transpose(1, 2)

    expected_BET = F.conv1d(F.pad(one_hot_BVT, (3, 0)), kernel_EVK)

    torch.testing.assert_close(made(ids_BT), expected_BET.transpose(1, 2))


def test_pairs_do_not_collide_with_enough_rows() -> None:
    made = embedding(pair_rows=V * V)
    before, after = torch.cartesian_prod(torch.arange(V), torch.arange(V)).T

    added = made(torch.stack([before, after], 1))[:, 1] - F.embedding(after, made.weight)

    torch.testing.assert_close(added, made.pairs)


def test_the_first_token_has_nothing_before_it() -> None:
    ids_BT = torch.arange(V)[:, None]

    assert torch.equal(embedding(3, 10)(ids_BT), F.embedding(ids_BT, embedding(3, 10).weight))


@given(
    st.lists(st.integers(0, V - 1), min_size=2, max_size=12),
    st.data(),
    st.sampled_from([(1, 0), (4, 0), (1, 9), (3, 9)]),
)
def test_a_text_may_arrive_in_any_pieces(
    ids: list[int], data: st.DataObject, sizes: tuple[int, int]
) -> None:
    made, ids_BT = embedding(*sizes), torch.tensor([ids])
    cut = data.draw(st.integers(1, len(ids) - 1))
    start = made.initial_recent(1).get("recent")

    state = made.recent_after(ids_BT[:, :cut], start)
    pieces = [made(ids_BT[:, :cut], start), made(ids_BT[:, cut:], state.get("recent"))]

    assert torch.equal(torch.cat(pieces, 1), made(ids_BT))


def test_the_state_holds_the_last_tokens() -> None:
    made = embedding(kernel_size=4)

    state = made.recent_after(torch.tensor([[1, 2]]), made.initial_recent(1)["recent"])

    assert state["recent"].tolist() == [[NO_TOKEN, 1, 2]]


@pytest.mark.parametrize(
    ("kernel_size", "pair_rows", "num_recent"), [(1, 0, 0), (1, 4, 1), (4, 4, 3)]
)
def test_the_state_holds_only_needed_tokens(
    kernel_size: int, pair_rows: int, num_recent: int
) -> None:
    made = embedding(kernel_size, pair_rows)

    assert made.num_recent == num_recent
    assert {name: tensor.shape[1] for name, tensor in made.initial_recent(2).items()} == (
        {"recent": num_recent} if num_recent else {}
    )
