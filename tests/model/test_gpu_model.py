"""Kernels for a GPU, run by Triton's interpreter: what they compute, and that company is nothing.

The interpreter multiplies by numpy, so only one tile is tried here: that all tiles give the same
bits is a property of the compiled kernels, and `tests/gpu` asks for it.

Legend: B rows, T tokens, V vocabulary, K steps.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from charlm_model.counter import Counters
from charlm_model.language_model import Burst, LanguageModel
from charlm_model.state import State

pytest.importorskip("triton", reason="the extra `triton` is not installed: make unit")

from charlm_model.gpu.model import GpuModel
from charlm_model.gpu.tiles import Tile, Tiling

MakeModel = Callable[..., LanguageModel]
FAMILIES = ("rnn", "gru", "lstm", "transformer")
TILING = Tiling((Tile(rows=4, columns=64, depth=64, num_warps=1, num_stages=1, at_least=1),))
IDS_BT = torch.tensor([[3, 0, 4, 1, 9, 2], [0, 10, 6, 2, 3, 3], [5, 5, 8, 7, 1, 0]])
COUNTERS = Counters(
    np.array([7, 2**63 + 5, 7], np.uint64),
    np.array([0, 1, 0], np.uint64),
    np.array([6, 2**33, 6], np.uint64),
)

pytestmark = pytest.mark.slow


def on_gpu(model: LanguageModel) -> GpuModel:
    return GpuModel(model, torch.device("cpu"), TILING)


def rows(counters: Counters, chosen: list[int]) -> Counters:
    return Counters(*(column_B[chosen] for column_B in counters))


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_read_as_the_processor_reads_them(family: str, make_model: MakeModel) -> None:
    model = make_model(family, num_layers=2)
    gpu = on_gpu(model)

    ours_BTV, ours = gpu.advance(IDS_BT, gpu.initial_state(3))

    wanted_BTV, wanted = model.advance(IDS_BT, model.initial_state(3))
    torch.testing.assert_close(ours_BTV, wanted_BTV, rtol=1e-3, atol=1e-4)
    for name, tensor in wanted.tensors.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("family", ["rnn", "transformer"])
def test_tokens_are_drawn_as_the_processor_draws_them(family: str, make_model: MakeModel) -> None:
    model = make_model(family, num_layers=1)
    gpu = on_gpu(model)
    logits_BV = torch.randn(3, 11) * 3

    ours, ours_BV, state = gpu.sample(logits_BV, gpu.initial_state(3), COUNTERS, 5)

    wanted, wanted_BV, after = model.sample(logits_BV, model.initial_state(3), COUNTERS, 5)
    np.testing.assert_array_equal(ours.ids_BK, wanted.ids_BK)
    np.testing.assert_allclose(ours.logprobs_BK, wanted.logprobs_BK, atol=1e-4)
    torch.testing.assert_close(ours_BV, wanted_BV, rtol=1e-3, atol=1e-4)
    assert torch.equal(state["recent"], after["recent"])


def test_a_large_vocabulary_is_looked_at_in_parts(make_model: MakeModel) -> None:
    model = make_model("rnn", num_layers=1, vocab_size=1500)
    gpu = on_gpu(model)
    logits_BV = torch.randn(3, 1500)

    ours, _, _ = gpu.sample(logits_BV, gpu.initial_state(3), COUNTERS, 1)

    wanted, _, _ = model.sample(logits_BV, model.initial_state(3), COUNTERS, 1)
    np.testing.assert_array_equal(ours.ids_BK, wanted.ids_BK)
    np.testing.assert_allclose(ours.logprobs_BK, wanted.logprobs_BK, atol=1e-6)


def test_impossible_tokens_are_never_drawn(make_model: MakeModel) -> None:
    gpu = on_gpu(make_model("rnn", num_layers=1, kernel_size=1, pair_rows=0))
    logits_BV = torch.full((1, 11), -2000.0)
    logits_BV[0, 6] = 5.0

    burst, _, _ = gpu.sample(logits_BV, gpu.initial_state(1), rows(COUNTERS, [0]), 1)

    assert burst.ids_BK.tolist() == [[6]]
    assert burst.logprobs_BK.tolist() == [[0.0]]


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_company_chunks_and_places_change_no_bit(family: str, make_model: MakeModel) -> None:
    gpu = on_gpu(make_model(family, num_layers=1))

    together = _continued(gpu, IDS_BT, COUNTERS, [6])
    alone = _continued(gpu, IDS_BT[2:], rows(COUNTERS, [2]), [1, 3, 2])

    assert _bits(*alone, row=0) == _bits(*together, row=2)


def test_rows_of_another_tile_change_no_bit(make_model: MakeModel) -> None:
    gpu = on_gpu(make_model("gru", num_layers=1))
    chosen = [0, 1, 0, 1, 2]

    together = _continued(gpu, IDS_BT[chosen], rows(COUNTERS, chosen), [2, 1, 1, 2])
    alone = _continued(gpu, IDS_BT[2:], rows(COUNTERS, [2]), [6])

    assert _bits(*alone, row=0) == _bits(*together, row=4)


def test_a_token_that_the_vocabulary_lacks_is_refused(make_model: MakeModel) -> None:
    gpu = on_gpu(make_model("rnn"))

    with pytest.raises(IndexError, match="vocabulary"):
        gpu.advance(torch.tensor([[11]]), gpu.initial_state(1))


def _continued(
    gpu: GpuModel, ids_BT: Tensor, counters: Counters, chunks: list[int]
) -> tuple[Tensor, State, Burst]:
    """Texts read in such chunks, and bursts of 3 and of 1 after them."""
    state, read = gpu.initial_state(len(ids_BT)), []
    for part_BT in ids_BT.split(chunks, dim=1):
        logits_BTV, state = gpu.advance(part_BT, state)
        read.append(logits_BTV)
    first, logits_BV, state = gpu.sample(logits_BTV[:, -1], state, counters, 3)
    moved = counters._replace(positions_B=counters.positions_B + np.uint64(3))
    second, logits_BV, state = gpu.sample(logits_BV, state, moved, 1)
    burst = Burst(*(np.concatenate(both, axis=1) for both in zip(first, second, strict=True)))
    return torch.cat([*read, logits_BV[:, None]], dim=1), state, burst


def _bits(logits_BTV: Tensor, state: State, burst: Burst, *, row: int) -> bytes:
    tensors = [logits_BTV, *state.tensors.values(), *map(torch.from_numpy, burst)]
    return b"".join(tensor[row].flatten().view(torch.uint8).numpy().tobytes() for tensor in tensors)
