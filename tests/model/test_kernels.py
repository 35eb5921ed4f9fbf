"""What is compiled has one value, and it is the right one."""

import sys
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from charlm_model.compiled import functions, vectors
from charlm_model.compiled.build import compiled
from charlm_model.compiled.product import add_product, padded, panels_of
from charlm_model.compiled.rows import share_rows
from charlm_model.compiled.sampling import uniform
from charlm_model.counter import Counters, uniforms
from charlm_model.language_model import LanguageModel

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
def test_a_row_has_the_same_bits_in_any_company(depth: int, outputs: int) -> None:
    weight, company = normal(outputs, depth), normal(30, depth)
    alone = product(company[3:4], weight)[0]

    for num_rows in range(4, 31):
        assert np.array_equal(product(company[:num_rows], weight)[3], alone)


def test_an_output_is_one_chain_of_fused_multiply_adds() -> None:
    x, weight = normal(1, 50), normal(1, 50)
    total = np.float32(0)
    for a, b in zip(x[0], weight[0], strict=True):
        exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(total))
        total = nearest_float32(exact)

    assert product(x, weight)[0, 0] == total


def nearest_float32(exact: Fraction) -> np.float32:
    near = np.float32(float(exact))
    around = [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]
    return min(around, key=lambda value: abs(Fraction(float(value)) - exact))


@compiled
def apply_all(x, powers, tangents, sigmoids):
    for i in range(0, len(x), vectors.LANES):
        value = vectors.load(x, i)
        vectors.store(powers, i, functions.exp(value))
        vectors.store(tangents, i, functions.tanh(value))
        vectors.store(sigmoids, i, functions.sigmoid(value))


def test_functions_are_what_they_are_called() -> None:
    x = np.linspace(-86, 86, 16_000, dtype=np.float32)
    powers, tangents, sigmoids = (np.empty_like(x) for _ in range(3))
    apply_all(x, powers, tangents, sigmoids)
    wide = x.astype(np.float64)

    np.testing.assert_allclose(powers, np.exp(wide), rtol=2e-7)
    np.testing.assert_allclose(tangents, np.tanh(wide), atol=2e-7)
    np.testing.assert_allclose(sigmoids, 1 / (1 + np.exp(-wide)), atol=2e-7)


def test_random_numbers_are_those_of_the_counter() -> None:
    words = np.random.default_rng(0).integers(2**64, size=(3, 50), dtype=np.uint64)

    found = [uniform(*column) for column in words.T]

    assert found == uniforms(*words).tolist()


@pytest.mark.parametrize("family", COMPILED)
def test_a_burst_is_its_steps(make_model: MakeModel, family: str) -> None:
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
def test_an_id_that_is_no_token_is_not_looked_up(make_model: MakeModel, family: str) -> None:
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


@pytest.mark.parametrize("num_rows", [1, 2, 9, 64, 65])
def test_every_row_is_in_one_share(num_rows: int) -> None:
    seen: list[int] = []

    share_rows(lambda rows: seen.extend(range(num_rows)[rows]), num_rows, sys.maxsize)

    assert sorted(seen) == list(range(num_rows))


def test_what_goes_wrong_in_a_thread_is_told() -> None:
    def work(rows: slice) -> None:
        raise IndexError(rows.start)

    with pytest.raises(IndexError):
        share_rows(work, 64, sys.maxsize)
