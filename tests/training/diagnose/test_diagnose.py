"""Context and order are measured on models whose answers are known; requests are checked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_training.corpus.dataset import Data, DataOptions
from charlm_training.diagnose import context, order, truncation
from charlm_training.diagnose.context import Loss, effective_length, losses_of
from charlm_training.diagnose.diagnosed_model import DiagnosedModel
from charlm_training.diagnose.diagnosis import Diagnosis
from charlm_training.diagnose.examine import DiagnoseOptions, examine
from charlm_training.diagnose.truncation import truncated_gradient
from charlm_training.diagnose.windows import spread_windows
from charlm_training.errors import CorpusTooSmall, InvalidOption, NotPossible
from charlm_training.planning.options import SizeOptions, TrainOptions
from charlm_training.run.ngram_baseline import fit_ngram
from charlm_training.run.run import Run
from charlm_training.run.workspace import Workspace

random = np.random.default_rng(0)
NOISE = "".join(random.choice(list("abcdefgh"), 6000))
WORDS = " ".join(random.choice(["fish", "bird", "stone", "river", "wind"], 1200))


def subject_of(data: Data, order: int) -> DiagnosedModel:
    return DiagnosedModel(
        name="ngram",
        model=fit_ngram(data, order=order),
        vocabulary=data.vocabulary,
        validation=data.validation,
    )


@pytest.mark.slow
def test_an_ngram_looks_back_as_far_as_its_order_and_no_further(read: Any) -> None:
    losses = losses_of(subject_of(read(WORDS), 3))

    for loss in losses:
        if loss.kept >= 3:
            assert loss.extra_nats == pytest.approx(0.0, abs=1e-9)
    for kind in context.KINDS:
        assert effective_length(losses, kind) in (2, 3)
    assert next(loss for loss in losses if loss.kept == 1).extra_nats > 0.1


def test_spoiling_far_context_leaves_the_near_one_alone() -> None:
    ids_BK = torch.randint(0, 50, (6, 20))

    for kind, spoil in context.SPOILERS.items():
        spoiled_BK = spoil(ids_BK, 5)
        assert torch.equal(spoiled_BK[:, -5:], ids_BK[:, -5:]), kind
    far_BK = context.shuffled(ids_BK, 5)[:, :15]
    assert torch.equal(far_BK.sort(1)[0], ids_BK[:, :15].sort(1)[0])
    assert not torch.equal(far_BK, ids_BK[:, :15])


def test_an_effective_length_holds_from_there_on() -> None:
    extras = {1: 1.0, 2: 0.001, 4: 0.5, 8: 0.009, 16: 0.0}
    losses = [
        Loss(kind="dropped", kept=kept, extra_nats=extra, standard_error=0.0)
        for kept, extra in extras.items()
    ]

    assert effective_length(losses, "dropped") == 8
    assert effective_length(losses[:3], "dropped") is None


def test_windows_are_spread_and_the_same_every_time() -> None:
    ids_N = np.arange(100, dtype=np.uint16)

    windows_BT = spread_windows(ids_N, 5, 10)

    assert windows_BT[0, 0] == 1
    assert windows_BT[-1, -1] == 99
    assert torch.equal(windows_BT, spread_windows(ids_N, 5, 10))
    with pytest.raises(CorpusTooSmall, match="99 tokens"):
        spread_windows(ids_N, 5, 200)


@pytest.mark.slow
def test_noise_is_as_good_as_independent_and_words_are_not(read: Any) -> None:
    noise, words = order.diagnose(read(NOISE)), order.diagnose(read(WORDS))

    assert "as good as i.i.d." in noise.sentence
    assert float(noise.rows[0]["validation_nats"]) == pytest.approx(np.log(8), abs=0.01)
    assert "times too small" in words.sentence
    assert float(words.rows[2]["validation_nats"]) < 0.5


def test_independence_costs_the_entropy_of_the_shares(read: Any) -> None:
    ids_N = np.array([0, 1, 1, 1, 2], dtype=np.uint16)

    nats = order.independent(ids_N, ids_N, 3)

    shares = {1: 4 / 7, 2: 2 / 7}
    assert nats == pytest.approx(-np.mean([np.log(shares[each]) for each in (1, 1, 1, 2)]))


def test_a_gradient_that_is_not_cut_is_the_full_one(read: Any) -> None:
    data = read(WORDS)
    torch.manual_seed(0)
    model = build(ModelConfig(family="gru", vocab_size=data.vocabulary.size, hidden_size=16))
    ids_BT = spread_windows(data.train.ids_N, 4, 65)

    whole_P = truncated_gradient(model, ids_BT, 64)
    loss = truncation.token_loss(
        model(ids_BT[:, :-1], model.initial_state(len(ids_BT)))[0], ids_BT[:, 1:]
    )
    loss.backward()  # type: ignore[no-untyped-call]
    direct_P = torch.cat(
        [each.grad.flatten() for each in model.parameters() if each.grad is not None]
    )
    cosines = [
        float(
            torch.nn.functional.cosine_similarity(truncated_gradient(model, ids_BT, k), whole_P, 0)
        )
        for k in (1, 8, 64)
    ]

    torch.testing.assert_close(whole_P, direct_P.double())
    assert cosines[0] < cosines[1] < cosines[2] == pytest.approx(1.0)


@pytest.mark.slow
def test_truncation_trains_alike_at_equal_characters(read: Any, clock: Any) -> None:
    clock.tick_s = 0.05
    said: list[str] = []
    trial = truncation.Trial(
        family="rnn", data=read(WORDS), seconds=1.0, seed=0, announce=said.append, clock=clock
    )

    found = truncation.diagnose(trial)

    assert [row["truncation"] for row in found.rows] == [4, 16, 64]
    assert len(said) == 6
    assert 0.5 < float(found.rows[0]["cosine_to_full_gradient"]) < 1.01


def test_a_text_too_short_to_compare_truncations_is_refused() -> None:
    assert truncation.lengths_for(2 * 64 * 32, 32) == [4, 16, 64]
    with pytest.raises(CorpusTooSmall, match="needs at least 1024"):
        truncation.lengths_for(500, 32)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["context", "gradient-flow"])
def test_a_model_of_lines_has_no_far_context_to_measure(tmp_path: Path, what: str) -> None:
    path = tmp_path / "names.txt"
    path.write_text("anna\nbob\ncarla\n" * 40)
    options = TrainOptions(
        corpus=str(path),
        out=tmp_path / "names",
        steps=2,
        data=DataOptions(unit="line"),
        size=SizeOptions(hidden_size=8),
    )
    Workspace(options.out).prepare(force=False)
    Run(options, lambda event: None, lambda: False).train()
    request = DiagnoseOptions(what=what, corpus=str(path), checkpoints=(options.out,))

    with pytest.raises(NotPossible, match="each line is a text of its own"):
        examine(request, tmp_path, lambda: False, lambda line: None)


@pytest.mark.slow
def test_a_diagnosis_leaves_a_table_and_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(WORDS)
    request = DiagnoseOptions(
        what="memorization", corpus=str(path), families=("ngram",), budget="5s"
    )

    found = examine(request, tmp_path / "work", lambda: False, lambda line: None)
    paths = found.save(tmp_path / "out")

    assert isinstance(found, Diagnosis)
    assert [each.name for each in paths] == ["memorization.csv", "memorization.png"]
    assert paths[0].read_text().startswith("text,copy_length,share_of_characters,longest_copy\n")
    assert paths[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"what": "entropy"}, "entropy"),
        ({"families": ("cnn",)}, "cnn"),
        ({"families": ("ngram",)}, "no gradients"),
        ({"checkpoints": (Path("x"),), "families": ("lstm",)}, "exclude"),
        ({"what": "order", "checkpoints": (Path("x"),)}, "leave --checkpoint out"),
        ({"budget": "soon"}, "soon"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        DiagnoseOptions(**{"what": "gradient-flow", "corpus": "x", **changes})
