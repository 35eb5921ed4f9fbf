"""Kernels are correct, and have the same bits in any batch and with any threads."""

import sys
import threading
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from charlm_model.kernels.cpu import elementary, simd
from charlm_model.kernels.cpu.barrier_group import BarrierGroup
from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.matmul import add_product, padded, panels_of
from charlm_model.kernels.cpu.sampling import uniform
from charlm_model.kernels.threads.call_sharding import (
    Autotuner,
    CallSharder,
    MakeWorkspace,
    Work,
    run_as_pair,
)
from charlm_model.kernels.threads.row_sharding import run_in_pool, shard_rows
from charlm_model.language_model import LanguageModel
from charlm_model.sampling.philox import Counters, uniforms

MakeModel = Callable[..., LanguageModel]
COMPILED = ["rnn", "gru", "lstm", "transformer"]
SHAPES = [(8, 5), (40, 160), (64, 65), (600, 130)]


def product(x_MK: np.ndarray, weight_NK: np.ndarray) -> np.ndarray:
    rows, depth = x_MK.shape
    width = padded(len(weight_NK))
    out = np.zeros(rows * width, np.float32)
    add_product(x_MK.ravel(), 0, depth, rows, depth, panels_of(weight_NK), 0, width, out, 0, width)
    return out.reshape(rows, width)[:, : len(weight_NK)]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("depth", "outputs"), SHAPES)
def test_a_product_is_the_linear_map(depth: int, outputs: int) -> None:
    x, weight = normal(13, depth), normal(outputs, depth)

    np.testing.assert_allclose(product(x, weight), x @ weight.T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("depth", "outputs"), SHAPES)
def test_a_row_has_the_same_bits_in_any_batch(depth: int, outputs: int) -> None:
    weight, batch = normal(outputs, depth), normal(30, depth)
    alone = product(batch[3:4], weight)[0]

    for num_rows in range(4, 31):
        assert np.array_equal(product(batch[:num_rows], weight)[3], alone)


def test_an_output_is_one_chain_of_fused_multiply_adds() -> None:
    x, weight = normal(1, 50), normal(1, 50)
    total = np.float32(0)
    for a, b in zip(x[0], weight[0], strict=True):
        exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(total))
        total = nearest_float32(exact)

    assert product(x, weight)[0, 0] == total


def nearest_float32(exact: Fraction) -> np.float32:
    near = np.float32(float(exact))
    around = [
        near,
        np.nextafter(near, np.float32(np.inf)),
        np.nextafter(near, np.float32(-np.inf)),
    ]
    return min(around, key=lambda value: abs(Fraction(float(value)) - exact))


@compiled
def apply_all(x, powers, tangents, sigmoids):
    for i in range(0, len(x), simd.LANES):
        value = simd.load(x, i)
        simd.store(powers, i, elementary.exp(value))
        simd.store(tangents, i, elementary.tanh(value))
        simd.store(sigmoids, i, elementary.sigmoid(value))


def test_elementary_functions_agree_with_numpy() -> None:
    x = np.linspace(-86, 86, 16_000, dtype=np.float32)
    powers, tangents, sigmoids = (np.empty_like(x) for _ in range(3))
    apply_all(x, powers, tangents, sigmoids)
    wide = x.astype(np.float64)

    np.testing.assert_allclose(powers, np.exp(wide), rtol=2e-7)
    np.testing.assert_allclose(tangents, np.tanh(wide), atol=2e-7)
    np.testing.assert_allclose(sigmoids, 1 / (1 + np.exp(-wide)), atol=2e-7)


@compiled
def rearrange(x, pairs, rearranged):
    a, b = simd.load(x, 0), simd.load(x, 16)
    simd.store(rearranged, 0, simd.load_evens(pairs, 0))
    simd.store(rearranged, 16, simd.load_odds(pairs, 0))
    simd.store(rearranged, 32, simd.combine_halves(a, b))
    simd.store(rearranged, 48, simd.repeat_evens(a))
    simd.store(rearranged, 64, simd.repeat_odds(a))
    simd.store(rearranged, 80, simd.fold_interleaved(a, b))
    simd.store(rearranged, 96, simd.fold_8(a, b))
    simd.store(rearranged, 112, simd.fold_4(a, b))
    simd.store(rearranged, 128, simd.fold_2(a, b))


def test_lanes_are_rearranged_as_documented() -> None:
    x = np.arange(32, dtype=np.float32) ** 2  # sums of any two differ
    found = np.empty(9 * 16, np.float32)
    rearrange(x, (x.view(np.int32) >> 16).astype(np.int16), found)
    evens, odds, halves, evens_twice, odds_twice, interleaved, *folds = found.reshape(9, 16)
    short = (x.view(np.int32) & -65536).view(np.float32)
    a, b = x[:16], x[16:]

    assert np.array_equal(evens, short[::2])
    assert np.array_equal(odds, short[1::2])
    assert np.array_equal(halves, [*a[:8], *b[8:]])
    assert np.array_equal(evens_twice, [*a[::2], *a[::2]])
    assert np.array_equal(odds_twice, [*a[1::2], *a[1::2]])
    assert np.array_equal(interleaved, np.ravel([a[:8] + a[8:], b[:8] + b[8:]], order="F"))
    for size, fold in zip((8, 4, 2), folds, strict=True):
        assert np.array_equal(fold, x.reshape(-1, 2, size // 2).sum(1).ravel())


def test_the_kernel_draws_philox_uniforms() -> None:
    words = np.random.default_rng(0).integers(2**64, size=(3, 50), dtype=np.uint64)

    found = [uniform(*column) for column in words.T]

    assert found == uniforms(*words).tolist()


@pytest.mark.parametrize("family", COMPILED)
def test_a_burst_equals_single_steps(make_model: MakeModel, family: str) -> None:
    model = make_model(family)
    seeds, outputs, positions = np.arange(15, dtype=np.uint64).reshape(3, 5)
    counters = Counters(seeds, outputs, positions)
    ids_BT = torch.arange(15).view(5, 3) % 11

    def started() -> tuple[torch.Tensor, object]:
        logits_BTV, state = model.advance(ids_BT, model.initial_state(5))
        return logits_BTV[:, -1], state

    burst, logits_BV, state = model.sample(*started(), counters, num_steps=30)
    stepped, wanted_BV, wanted = LanguageModel.sample(model, *started(), counters, num_steps=30)

    assert np.array_equal(burst.ids_BK, stepped.ids_BK)
    assert np.array_equal(burst.logprobs_BK, stepped.logprobs_BK)
    assert torch.equal(logits_BV, wanted_BV)
    assert all(torch.equal(state[name], wanted[name]) for name in wanted.tensors)


@pytest.mark.parametrize("family", COMPILED)
def test_an_id_outside_the_vocabulary_is_refused(make_model: MakeModel, family: str) -> None:
    model = make_model(family)

    for token_id in (-1, 11):
        with pytest.raises(IndexError):
            model.advance(torch.tensor([[token_id]]), model.initial_state(1))


def test_a_position_before_the_text_is_not_written_to(make_model: MakeModel) -> None:
    model = make_model("transformer")
    state = model.initial_state(1)
    state["position"][0] = -5

    with pytest.raises(IndexError):
        model.advance(torch.tensor([[0]]), state)


class Pairs(CallSharder):
    """Uses two threads for every call, even a small one."""

    def shard(self, work: Work, make_workspace: MakeWorkspace, num_rows: int, *_: object) -> None:
        run_as_pair(work, make_workspace, num_rows)


@pytest.mark.parametrize("family", COMPILED)
@pytest.mark.parametrize("num_rows", [1, 5])
def test_two_threads_give_the_bits_of_one(
    make_model: MakeModel, family: str, num_rows: int
) -> None:
    model = make_model(family)
    counters = Counters(*np.arange(3 * num_rows, dtype=np.uint64).reshape(3, num_rows))
    ids_BT = torch.arange(7 * num_rows).view(num_rows, 7) % 11

    def written() -> list[np.ndarray]:
        logits_BTV, state = model.advance(ids_BT, model.initial_state(num_rows))
        burst, logits_BV, state = model.sample(logits_BTV[:, -1], state, counters, num_steps=30)
        tensors = [logits_BTV, logits_BV, *state.tensors.values()]
        return [*burst, *(tensor.float().numpy() for tensor in tensors)]

    alone = written()
    model._sharder = Pairs()

    assert all(map(np.array_equal, written(), alone))


def no_workspace(_num_members: int, _num_rows: int) -> None:
    """For calls that need no workspace."""


@pytest.mark.parametrize("max_rows", [None, 8])
@pytest.mark.parametrize("num_rows", [1, 2, 9, 64, 65])
def test_every_row_is_in_one_shard(num_rows: int, max_rows: int | None) -> None:
    seen: list[int] = []

    shard_rows(
        lambda rows: seen.extend(range(num_rows)[rows]), num_rows, sys.maxsize, max_rows=max_rows
    )

    assert sorted(seen) == list(range(num_rows))


def test_no_shard_exceeds_max_rows() -> None:
    sizes: list[int] = []

    shard_rows(lambda rows: sizes.append(rows.stop - rows.start), 20, sys.maxsize, max_rows=8)

    assert sorted(sizes) == [4, 8, 8]


def test_an_idle_thread_takes_the_next_shard() -> None:
    rest_is_over = threading.Event()

    def work(rows: slice) -> None:
        if rows.start == 0:
            assert rest_is_over.wait(60)
        elif rows.start == 7:
            rest_is_over.set()

    run_in_pool(work, [slice(at, at + 1) for at in range(8)], 2)


@pytest.mark.parametrize("num_rows", [1, 64])
def test_an_error_in_a_thread_reaches_the_caller(num_rows: int) -> None:
    def work(rows: slice, _group: BarrierGroup, _workspace: object) -> None:
        raise IndexError(rows.start)

    with pytest.raises(IndexError):
        CallSharder().shard(work, no_workspace, num_rows, sys.maxsize)


def test_two_threads_are_used_as_long_as_they_are_faster() -> None:
    tuner = Autotuner()
    chosen = []

    def calls(num: int, pair_s: float, alone_s: float) -> None:
        for _ in range(num):
            is_pair = tuner.uses_pair()
            tuner.record(is_pair, pair_s if is_pair else alone_s)
            chosen.append(is_pair)

    calls(100, pair_s=1.0, alone_s=2.0)
    calls(100, pair_s=20.0, alone_s=2.0)
    calls(300, pair_s=1.0, alone_s=2.0)

    assert sum(chosen[:100]) >= 95
    assert sum(chosen[100:200]) <= 10
    assert sum(chosen[400:]) >= 90
