"""GPU kernels in Triton's interpreter: agreement with the CPU, and batch invariance.

Only one tile is tested here: that all tiles give the same bits is a property of compiled kernels,
which `tests/gpu` checks. A program takes 10 to 60 ms in the interpreter, so batches are small.

Legend: B rows, T tokens, V vocabulary, K steps.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from charlm_model.language_model import Burst, LanguageModel
from charlm_model.sampling.philox import Counters
from charlm_model.state import State

pytest.importorskip("triton", reason="the extra `triton` is not installed: make unit")

from interpreted import interpreted

MakeModel = Callable[..., LanguageModel]
FAMILIES = ("rnn", "gru", "lstm", "transformer")
IDS_BT = torch.tensor([[3, 0, 4, 1, 9], [0, 10, 6, 2, 3], [5, 5, 8, 7, 1]])
COUNTERS = Counters(
    np.array([7, 2**63 + 5, 7], np.uint64),
    np.array([0, 1, 0], np.uint64),
    np.array([6, 2**33, 6], np.uint64),
)

pytestmark = pytest.mark.slow


def rows(counters: Counters, chosen: list[int]) -> Counters:
    return Counters(*(column_B[chosen] for column_B in counters))


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_agrees_with_the_cpu(family: str, make_model: MakeModel) -> None:
    model = make_model(family, num_layers=2, context_length=3)
    gpu = interpreted(model)

    ours_BTV, ours = gpu.advance(IDS_BT[:2], gpu.initial_state(2))

    wanted_BTV, wanted = model.advance(IDS_BT[:2], model.initial_state(2))
    torch.testing.assert_close(ours_BTV, wanted_BTV, rtol=1e-3, atol=1e-4)
    for name, tensor in wanted.tensors.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("family", ["rnn", "transformer"])
def test_drawing_agrees_with_the_cpu(family: str, make_model: MakeModel) -> None:
    model = make_model(family, num_layers=1, num_heads=1, context_length=2)
    gpu = interpreted(model)
    logits_BV = torch.randn(3, 11) * 3

    ours, ours_BV, state = gpu.sample(logits_BV, gpu.initial_state(3), COUNTERS, 3)

    wanted, wanted_BV, after = model.sample(logits_BV, model.initial_state(3), COUNTERS, 3)
    np.testing.assert_array_equal(ours.ids_BK, wanted.ids_BK)
    np.testing.assert_allclose(ours.logprobs_BK, wanted.logprobs_BK, atol=1e-4)
    torch.testing.assert_close(ours_BV, wanted_BV, rtol=1e-3, atol=1e-4)
    assert torch.equal(state["recent"], after["recent"])


def test_a_large_vocabulary_is_processed_in_blocks(make_model: MakeModel) -> None:
    model = make_model("rnn", num_layers=1, vocab_size=1500)
    gpu = interpreted(model)
    logits_BV = torch.randn(3, 1500)

    ours, _, _ = gpu.sample(logits_BV, gpu.initial_state(3), COUNTERS, 1)

    wanted, _, _ = model.sample(logits_BV, model.initial_state(3), COUNTERS, 1)
    np.testing.assert_array_equal(ours.ids_BK, wanted.ids_BK)
    np.testing.assert_allclose(ours.logprobs_BK, wanted.logprobs_BK, atol=1e-6)


def test_impossible_tokens_are_never_drawn(make_model: MakeModel) -> None:
    gpu = interpreted(make_model("rnn", num_layers=1, kernel_size=1, pair_rows=0))
    logits_BV = torch.full((1, 11), -2000.0)
    logits_BV[0, 6] = 5.0

    burst, _, _ = gpu.sample(logits_BV, gpu.initial_state(1), rows(COUNTERS, [0]), 1)

    assert burst.ids_BK.tolist() == [[6]]
    assert burst.logprobs_BK.tolist() == [[0.0]]


@pytest.mark.parametrize("family", ["gru", "lstm", "transformer"])
def test_batch_chunks_row_and_tiles_change_no_bit(family: str, make_model: MakeModel) -> None:
    gpu = interpreted(make_model(family, num_layers=1, num_heads=1, context_length=3))
    batch = [0, 1, 0, 1, 2]  # the last one is in the second tile

    together = _continued(gpu, IDS_BT[batch, :4], rows(COUNTERS, batch), [4])
    alone = _continued(gpu, IDS_BT[2:, :4], rows(COUNTERS, [2]), [1, 3])

    assert _bits(*alone, row=0) == _bits(*together, row=4)


def test_a_token_that_the_vocabulary_lacks_is_refused(make_model: MakeModel) -> None:
    gpu = interpreted(make_model("rnn"))

    with pytest.raises(IndexError, match="vocabulary"):
        gpu.advance(torch.tensor([[11]]), gpu.initial_state(1))


def _continued(
    gpu: LanguageModel, ids_BT: Tensor, counters: Counters, chunks: list[int]
) -> tuple[Tensor, State, Burst]:
    """Texts read in these chunks, then bursts of 2 and of 1."""
    state, read = gpu.initial_state(len(ids_BT)), []
    for part_BT in ids_BT.split(chunks, dim=1):
        logits_BTV, state = gpu.advance(part_BT, state)
        read.append(logits_BTV)
    first, logits_BV, state = gpu.sample(logits_BTV[:, -1], state, counters, 2)
    moved = counters._replace(positions_B=counters.positions_B + np.uint64(2))
    second, logits_BV, state = gpu.sample(logits_BV, state, moved, 1)
    burst = Burst(*(np.concatenate(both, axis=1) for both in zip(first, second, strict=True)))
    return torch.cat([*read, logits_BV[:, None]], dim=1), state, burst


def _bits(logits_BTV: Tensor, state: State, burst: Burst, *, row: int) -> bytes:
    tensors = [logits_BTV, *state.tensors.values(), *map(torch.from_numpy, burst)]
    return b"".join(tensor[row].flatten().view(torch.uint8).numpy().tobytes() for tensor in tensors)
