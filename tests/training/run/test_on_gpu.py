"""Training on a real GPU: the steps of the processor, recorded, saved and gone on with."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel
from charlm_training.corpus.dataset import Data
from charlm_training.corpus.windows import BatchShape
from charlm_training.device import ready
from charlm_training.evaluation.checkpoint_evaluation import evaluate_checkpoint
from charlm_training.planning.options import SizeOptions, TrainOptions
from charlm_training.planning.plan import windows_of
from charlm_training.run.run import Run
from charlm_training.run.workspace import Workspace
from charlm_training.step.cuda_graph_update import GraphedUpdate
from charlm_training.step.learner import Learner

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

Read = Callable[..., Data]
FAMILIES = ["rnn", "gru", "lstm", "transformer"]
TEXT = "the cat sat on the mat.\nthe dog sat on the cat.\n" * 60
GPU = torch.device("cuda", 0)


def model_of(family: str, data: Data, dropout: float = 0.0) -> LanguageModel:
    torch.manual_seed(0)
    return build(
        ModelConfig(
            family=family, vocab_size=data.vocabulary.size, unit=data.unit, hidden_size=64,
            embedding_size=32, num_layers=2, num_heads=2, context_length=24, kernel_size=2,
            dropout=dropout,
        )
    )  # fmt: skip


def learner_of(model: LanguageModel, data: Data) -> Learner:
    windows = windows_of(data, BatchShape(batch_size=8, length=32, seed=1, fresh_share=0.2))
    return Learner(model, windows, clip_norm=1.0, weight_decay=0.01, muon_rate=2.0)


def losses_of(learner: Learner, num_steps: int) -> list[float]:
    return [learner.step(0.01).loss_nats for _ in range(num_steps)]


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_are_those_of_the_processor(read: Read, family: str) -> None:
    data = read(TEXT)
    model = model_of(family, data)

    expected = losses_of(learner_of(copy.deepcopy(model), data), 12)
    learner = learner_of(model.to(ready(GPU)), data)

    assert isinstance(learner._update, GraphedUpdate)  # or nothing would be tested
    assert losses_of(learner, 12) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_restored_learner_goes_on_as_before(read: Read, family: str) -> None:
    """Up to the order in which a GPU adds gradients up; dropout is drawn the same way."""
    data = read(TEXT)
    learner = learner_of(model_of(family, data, dropout=0.3).to(ready(GPU)), data)
    losses_of(learner, 5)
    snapshot = learner.snapshot()
    expected = losses_of(learner, 6)

    learner.restore(snapshot)

    assert losses_of(learner, 6) == pytest.approx(expected, rel=1e-2)


def test_lines_of_all_lengths_are_learned(read: Read) -> None:
    text = "".join(f"{'ab' * (number % 23 + 1)}\n" for number in range(200))
    data = read(text, unit="line")
    learner = learner_of(model_of("lstm", data).to(ready(GPU)), data)

    losses = losses_of(learner, 60)

    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_has_the_same_figures_on_the_processor(tmp_path: Path, family: str) -> None:
    corpus = tmp_path / "text.txt"
    corpus.write_text(TEXT)
    size = SizeOptions(hidden_size=64, num_layers=1, num_heads=2, batch_size=8, window_length=32)
    options = TrainOptions(
        corpus=str(corpus), out=tmp_path / "out", family=family, device="cuda", steps=40, size=size
    )
    Workspace(options.out).prepare(force=False)

    report = Run(options, lambda event: None, lambda: False).train().report

    again = evaluate_checkpoint(options.out, options.corpus)
    for ours, theirs in zip(report["validation"], again["validation"], strict=True):
        assert ours["nats_per_token"] == pytest.approx(theirs["nats_per_token"], abs=1e-4)
    assert report["training"]["device"].startswith("cuda, ")
