"""Steps of a CUDA graph equal direct steps; without a GPU a fake capturer repeats the work."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from charlm_model.config import ModelConfig
from charlm_model.devices import CPU
from charlm_model.families.registry import build
from charlm_model.state import State
from charlm_training.corpus.dataset import Data
from charlm_training.corpus.windows import NO_TARGET, BatchShape, Position, Window
from charlm_training.optim.optimizer import Optimizer
from charlm_training.planning.plan import windows_of
from charlm_training.process_group import SINGLE_PROCESS
from charlm_training.step.cuda_graph_update import LENGTH_STEP, GraphBuffers, GraphedUpdate, Work
from charlm_training.step.learner import Learner
from charlm_training.step.update import Update

Read = Callable[..., Data]
FAMILIES = ["rnn", "gru", "lstm", "transformer"]
BATCH_SIZE = 4
META = torch.device("meta")


@dataclass
class Repeating:
    """A capturer for processors: it does the captured work again."""

    num_run: int = 0
    num_captured: int = 0

    def run(self, work: Work) -> None:
        self.num_run += 1
        work()

    def capture(self, work: Work) -> Work:
        self.num_captured += 1
        return work


def update_of(family: str, data: Data, dropout: float = 0.0, device: torch.device = CPU) -> Update:
    torch.manual_seed(0)
    model = build(
        ModelConfig(
            family=family, vocab_size=data.vocabulary.size, unit=data.unit, hidden_size=16,
            embedding_size=8, num_heads=2, context_length=16, dropout=dropout, kernel_size=2,
        )
    ).to(device)  # fmt: skip
    optimizer = Optimizer(model, muon_rate=2.0, weight_decay=0.01)
    return Update(model, optimizer, 1.0, slice(0, BATCH_SIZE), BATCH_SIZE, SINGLE_PROCESS)


def losses_of(update: Update | GraphedUpdate, data: Data, num_steps: int) -> list[list[float]]:
    shape = BatchShape(batch_size=BATCH_SIZE, length=16, seed=1, fresh_share=0.2)
    upcoming = windows_of(data, shape).starting_at(Position())
    torch.manual_seed(1)
    told, state = [], None
    for step in range(num_steps):
        loss_and_norm_2, state = update(next(upcoming), state, 0.01 / (step + 1))
        told.append(loss_and_norm_2.tolist())
    return told


@pytest.mark.parametrize("family", FAMILIES)
def test_captured_steps_give_the_same_losses(read: Read, family: str) -> None:
    data, capturer = read("the cat sat on the mat. " * 30), Repeating()

    captured = losses_of(GraphedUpdate(update_of(family, data), capturer), data, 6)

    # Where a state is fresh and where not is not asked: all rows are computed the same way.
    assert captured == [
        pytest.approx(each, rel=2e-3) for each in losses_of(update_of(family, data), data, 6)
    ]
    assert (capturer.num_run, capturer.num_captured) == (1, 1)


def test_each_length_of_documents_is_captured_once(read: Read) -> None:
    text = "".join(f"{'ab' * (number % 23 + 1)}\n" for number in range(150))
    data, capturer = read(text, unit="line"), Repeating()

    captured = losses_of(GraphedUpdate(update_of("lstm", data), capturer), data, 40)

    plain = losses_of(update_of("lstm", data), data, 40)
    assert capturer.num_captured <= capturer.num_run <= 64 // LENGTH_STEP
    assert captured == [pytest.approx(each, rel=1e-2) for each in plain]


def test_a_shorter_window_is_filled_up_with_nothing_to_learn() -> None:
    desk = GraphBuffers.of(2, 16, torch.device("cpu"))
    desk.put(window_of(16))
    desk.put(window_of(5))

    assert (desk.target_BT != NO_TARGET).sum() == 2 * 5
    assert desk.num_targets == 10


def test_a_state_from_elsewhere_is_taken_over(read: Read) -> None:
    """As after a rollback: what is carried on is what was given."""
    data = read("the cat sat on the mat. " * 30)
    plain, captured = (update_of("lstm", data) for _ in range(2))
    update = GraphedUpdate(captured, Repeating())
    state = plain.model.initial_state(2)
    given = State({name: torch.ones_like(each) for name, each in state.tensors.items()})
    update(window_of(16), state, 0.0)

    loss_and_norm_2, kept = update(window_of(16), given, 0.0)

    expected_2, after = plain(window_of(16), given, 0.0)
    torch.testing.assert_close(loss_and_norm_2, expected_2, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(kept["hidden"], after["hidden"], atol=1e-3, rtol=1e-3)


def test_after_an_exchange_of_tensors_all_is_captured_anew(read: Read) -> None:
    capturer = Repeating()
    update = GraphedUpdate(update_of("gru", read("the cat sat. " * 30)), capturer)
    state = None
    for step in range(6):
        if step == 3:
            update.forget()
        _, state = update(window_of(16), state, 0.01)

    assert (capturer.num_run, capturer.num_captured) == (2, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_captured_asks_for_no_number(
    read: Read, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that records has nothing to answer with, and neither have tensors on the meta device.

    Muon, clipping and all of the model are the real ones; of AdamW torch has no kernel there.
    """
    monkeypatch.setattr(
        "charlm_training.optim.optimizer._adamw",
        lambda parameters, weight_decay: torch.optim.SGD(parameters, lr=0.1),
    )
    update = update_of(family, read("the cat sat on the mat. " * 30), dropout=0.3, device=META)
    capturer, state = Repeating(), None
    captured = GraphedUpdate(update, capturer)

    for _ in range(3):
        loss_and_norm_2, state = captured(window_of(16, BATCH_SIZE).to(META), state, 0.01)

    assert loss_and_norm_2.is_meta
    assert capturer.num_captured == 1


def test_on_a_processor_nothing_is_captured(read: Read) -> None:
    data = read("the cat sat on the mat. " * 30)
    windows = windows_of(data, BatchShape(batch_size=4, length=16))
    model = update_of("rnn", data).model

    learner = Learner(model, windows, clip_norm=1.0, weight_decay=0.0)

    assert learner.step(0.01).num_targets == 4 * 16


def window_of(length: int, num_rows: int = 2) -> Window:
    ids_BT = torch.ones(num_rows, length, dtype=torch.long)
    is_fresh_B = torch.zeros(num_rows, dtype=torch.bool)
    return Window(ids_BT, ids_BT, is_fresh_B, num_rows * length, Position(0, 1))
