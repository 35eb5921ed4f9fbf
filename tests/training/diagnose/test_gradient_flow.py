"""Gradients through time, against the calculus they stand for."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from charlm_model.config import ModelConfig
from charlm_model.families.recurrent import RecurrentModel
from charlm_model.families.registry import build
from charlm_training.diagnose.diagnosed_model import DiagnosedModel
from charlm_training.diagnose.gradient_flow import diagnose as diagnose_flow
from charlm_training.diagnose.gradient_flow import flows_of, half_life
from charlm_training.diagnose.input_gradients import input_gradients
from charlm_training.diagnose.jacobians import cell_step, state_gradients, unrolled

V, H, T = 7, 6, 5
PATHS = [("rnn", "hidden"), ("gru", "hidden"), ("lstm", "hidden"), ("lstm", "cell")]


def small(family: str, **changes: Any) -> RecurrentModel:
    torch.manual_seed(1)
    config = ModelConfig(
        family=family, vocab_size=V, **{"hidden_size": H, "embedding_size": 4, **changes}
    )
    model = build(config).double().eval()
    assert isinstance(model, RecurrentModel)
    return model


@pytest.mark.parametrize(("family", "path"), PATHS)
def test_unrolled_states_are_those_of_the_model(family: str, path: str) -> None:
    model, ids_BT = small(family, num_layers=2), torch.randint(1, V, (3, T))
    initial = model.initial_state(3)
    before = type(initial)({name: each.double() for name, each in initial.tensors.items()})

    top = unrolled(model, ids_BT)

    with torch.no_grad():
        fused = model.recurrent(
            model.embedding(ids_BT),
            tuple(before[n].transpose(0, 1) for n in before.tensors)
            if len(before.tensors) > 1
            else before["hidden"].transpose(0, 1),
        )[1]
    after = dict(zip(before.tensors, fused if isinstance(fused, tuple) else (fused,), strict=True))
    torch.testing.assert_close(top[-1][path], after[path][-1])


@pytest.mark.parametrize(("family", "path"), PATHS)
def test_norms_are_those_of_finite_differences(family: str, path: str) -> None:
    model, ids_BT = small(family), torch.randint(1, V, (1, T))

    norms = state_gradients(model, ids_BT, path, num_probes=H)

    for lag in range(T + 1):
        expected = differences(model, ids_BT, path, lag).norm() / math.sqrt(H)
        assert norms[lag] == pytest.approx(float(expected), rel=1e-5)


def differences(model: RecurrentModel, ids_BT: Tensor, path: str, lag: int) -> Tensor:
    """ds_T/ds_(T-lag) by central differences of the cells, all other states held fixed."""
    top = unrolled(model, ids_BT[:, : T - lag])[-1]
    state = {name: tensor.detach() for name, tensor in top.items()}

    def run(changed: Tensor) -> Tensor:
        current = tuple(changed if name == path else state[name] for name in state)
        with torch.no_grad():
            for ids_B in ids_BT[:, T - lag :].unbind(1):
                current = cell_step(model, 0, model.embedding(ids_B), current)
        return current[list(state).index(path)][0]

    step = 1e-5
    columns = []
    for index in range(H):
        nudge = torch.zeros(1, H, dtype=torch.float64)
        nudge[0, index] = step
        columns.append((run(state[path] + nudge) - run(state[path] - nudge)) / (2 * step))
    return torch.stack(columns, 1)


def test_random_signs_estimate_the_exact_norm() -> None:
    model, ids_BT = small("gru", hidden_size=32), torch.randint(1, V, (4, 10))

    exact = state_gradients(model, ids_BT, "hidden", num_probes=32)
    estimated = state_gradients(model, ids_BT, "hidden", num_probes=31, seed=3)

    assert estimated == pytest.approx(exact, rel=0.15)


def test_a_linear_rnn_decays_as_the_powers_of_its_matrix() -> None:
    """With an orthogonal matrix times 1/2 and states near zero, each lag halves the gradient."""
    model = small("rnn")
    with torch.no_grad():
        model.embedding.weight.zero_()
        model.recurrent.weight_hh_l0.mul_(0.5)

    norms = state_gradients(model, torch.ones(2, 12, dtype=torch.long), "hidden", num_probes=H)

    assert norms == pytest.approx([0.5**lag for lag in range(13)])
    assert half_life(norms) == pytest.approx(1.0)


@pytest.mark.parametrize("norms", [[1.0] * 50, [1.01**k for k in range(50)]])
def test_what_does_not_decay_has_no_half_life(norms: list[float]) -> None:
    assert math.isinf(half_life(norms)) or half_life(norms) > 1e6


def test_a_half_life_is_read_off_before_rounding_takes_over() -> None:
    norms = [max(2 ** (-k / 3), 1e-9) for k in range(200)]

    assert half_life(norms) == pytest.approx(3.0)


@pytest.mark.parametrize("family", ["rnn", "gru", "lstm", "transformer"])
def test_input_gradients_are_those_of_finite_differences(family: str) -> None:
    torch.manual_seed(2)
    sizes = {"hidden_size": 8, "embedding_size": 8, "num_layers": 2, "num_heads": 2}
    model = build(ModelConfig(family=family, vocab_size=V, **sizes)).eval()
    ids_1T = torch.randperm(V)[None]  # no token twice, so a row of the table is one place

    norms = input_gradients(model, ids_1T)

    table = model.get_parameter("embedding.weight")
    squares = [
        sum(slope(model, ids_1T, table, token, e) ** 2 for e in range(8))
        for token in reversed(ids_1T[0, :-1].tolist())
    ]
    expected = [math.sqrt(square / squares[0]) for square in squares]
    assert norms == pytest.approx(expected, rel=0.05, abs=0.02)


def slope(model: Any, ids_1T: Tensor, table: Tensor, token: int, place: int) -> float:
    """The derivative of the last surprisal by one number of one token's vector."""
    losses = []
    for nudge in (1e-2, -1e-2):
        with torch.no_grad():
            table[token, place] += nudge
            logits_1TV, _ = model(ids_1T[:, :-1], model.initial_state(1))
            losses.append(-float(logits_1TV[0, -1].log_softmax(-1)[ids_1T[0, -1]]))
            table[token, place] -= nudge
    return (losses[0] - losses[1]) / 2e-2


def test_measuring_leaves_no_gradients_behind() -> None:
    model = build(ModelConfig(family="lstm", vocab_size=V, hidden_size=8)).eval()

    input_gradients(model, torch.randint(1, V, (2, 9)))

    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.slow
def test_a_diagnosis_has_every_path_before_and_after(read: Any) -> None:
    data = read("the cat sat on the mat. " * 60)
    subjects = [
        DiagnosedModel(
            name=family,
            model=build(
                ModelConfig(family=family, vocab_size=data.vocabulary.size, hidden_size=16)
            ).eval(),
            vocabulary=data.vocabulary,
            validation=data.validation,
        )
        for family in ("lstm", "transformer")
    ]

    found = diagnose_flow(subjects)

    paths = {(row["model"], row["phase"], row["path"]) for row in found.rows}
    assert len(paths) == 2 * 3 + 2 * 1
    assert "lstm cell" in found.sentence
    assert [flow.norms[0] for flow in flows_of(subjects[0])] == pytest.approx([1.0] * 6)
