"""A whole run, from a text file to a checkpoint whose number can be repeated."""

import json
from pathlib import Path
from typing import Any

import pytest

from charlm_model import checkpoint
from charlm_training.corpus.dataset import DataOptions
from charlm_training.errors import InvalidOption, OutputFailed, OutputInTheWay
from charlm_training.evaluation.checkpoint_evaluation import evaluate_checkpoint
from charlm_training.monitoring.events import Event, Noticed, Sampled
from charlm_training.planning.options import SizeOptions, TrainOptions
from charlm_training.run.run import Run
from charlm_training.run.workspace import Workspace

FAMILIES = ["ngram", "rnn", "gru", "lstm", "transformer"]
TEXT = "the cat sat on the mat.\nthe dog sat on the cat.\n" * 30
NAMES = "anna\nbob\ncarla\ndora\n" * 30


def options(folder: Path, text: str = TEXT, **changes: Any) -> TrainOptions:
    corpus = folder / "text.txt"
    corpus.write_bytes(text.encode())
    sizes = SizeOptions(hidden_size=16, num_layers=1, num_heads=2, batch_size=4, window_length=16)
    defaults = {"corpus": str(corpus), "out": folder / "out", "steps": 30, "size": sizes}
    return TrainOptions(**{**defaults, **changes})


def train(run_options: TrainOptions, clock: Any, listener: Any = lambda event: None) -> Any:
    Workspace(run_options.out).prepare(force=False)
    return Run(run_options, listener, lambda: False, clock).train()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_evaluate_repeats_the_number_of_training_exactly(
    tmp_path: Path, clock: Any, family: str
) -> None:
    run_options = options(tmp_path, family=family)

    report = train(run_options, clock).report

    again = evaluate_checkpoint(run_options.out, run_options.corpus)
    assert again["part"] == "validation"
    assert again["validation"] == report["validation"]
    assert again["validation"] == checkpoint.load(run_options.out).report["validation"]


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", ["char", "byte", "sentencepiece"])
@pytest.mark.parametrize("unit", ["stream", "line"])
def test_every_vocabulary_and_unit_is_trained_and_repeated(
    tmp_path: Path, clock: Any, vocabulary: str, unit: str
) -> None:
    size = 300 if vocabulary == "sentencepiece" else None
    data = DataOptions(unit=unit, vocabulary=vocabulary, vocab_size=size)
    run_options = options(tmp_path, NAMES, data=data, steps=5)

    report = train(run_options, clock).report

    again = evaluate_checkpoint(run_options.out, run_options.corpus)
    assert again["validation"] == report["validation"]


def test_another_text_is_evaluated_as_a_whole(tmp_path: Path, clock: Any) -> None:
    run_options = options(tmp_path, steps=2)
    train(run_options, clock)
    other = tmp_path / "other.txt"
    other.write_text("the cat sat, Zoë.")

    report = evaluate_checkpoint(run_options.out, str(other))

    assert (report["part"], report["evaluated_characters"]) == ("whole", 17)
    assert report["unknown_characters"] == 3


def test_a_report_says_all_that_is_needed_to_repeat_it(tmp_path: Path, clock: Any) -> None:
    run_options = options(tmp_path, command="charlm train text.txt", seed=5)

    report = train(run_options, clock).report

    assert report["training"]["command"] == "charlm train text.txt"
    assert report["training"]["seed"] == 5
    training = report["training"]
    assert training["steps"] == 30
    assert training["tokens"] == 30 * training["batch_size"] * training["window_length"]
    assert report["training"]["stopped_by"] == "budget"
    assert len(report["data"]["sha256"]) == 64
    assert report["data"]["train_characters"] == 1296
    assert report["model"]["num_parameters"] > 1000
    assert set(report["versions"]) == {"charlm", "python", "torch", "numpy"}
    assert [entry["protocol"] for entry in report["validation"]] == [
        "cold blocks of 256", "streamed",
    ]  # fmt: skip
    assert [entry["protocol"] for entry in report["ngram"]["validation"]] == [
        "cold blocks of 256", "streamed",
    ]  # fmt: skip


def test_the_same_command_gives_the_same_model(tmp_path: Path, clock: Any) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()

    for folder in (first, second):
        train(options(folder, seed=3), clock)

    weights = [(folder / "out" / "model.safetensors").read_bytes() for folder in (first, second)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_names_are_sampled_one_a_line(tmp_path: Path, clock: Any) -> None:
    events: list[Event] = []
    data = DataOptions(unit="line")
    size = SizeOptions(hidden_size=32, learning_rate=0.02)

    train(options(tmp_path, NAMES, data=data, size=size, steps=200), clock, events.append)

    last = [event for event in events if isinstance(event, Sampled)][-1]
    assert set(last.text.split("\n")) <= {"anna", "bob", "carla", "dora"}


def test_a_200_character_corpus_trains_with_a_warning(tmp_path: Path, clock: Any) -> None:
    events: list[Event] = []
    run_options = options(tmp_path, "to be or not to be, " * 10, size=SizeOptions(), steps=3)

    report = train(run_options, clock, events.append).report

    assert any("were reduced" in event.text for event in events if isinstance(event, Noticed))
    assert report["validation"][0]["num_tokens"] == 19


@pytest.mark.slow
def test_a_wall_clock_holds_for_all_after_reading(tmp_path: Path, clock: Any) -> None:
    """Every look at this clock takes 20 ms, so the run is slow everywhere, and yet in time."""
    clock.tick_s = 0.02
    run_options = options(tmp_path, steps=None, budget="20s")
    ends: list[float] = []
    began: list[float] = []

    def listen(event: Event) -> None:
        began.append(clock.now)
        ends.append(clock.now)

    train(run_options, clock, listen)

    assert 0.9 * 20 <= ends[-1] - 1000.0 <= 20


def test_a_checkpoint_is_on_disk_before_the_end(tmp_path: Path, clock: Any) -> None:
    """Should the power fail, the best so far is there, and says that it is not finished."""
    found: list[bool] = []
    run_options = options(tmp_path, steps=60)

    def listen(event: Event) -> None:
        clock.now += 10
        if (run_options.out / "report.json").exists():
            report = json.loads((run_options.out / "report.json").read_text())
            found.append(report["training"]["is_finished"])

    train(run_options, clock, listen)

    assert found[0] is False
    assert found[-1] is True


def test_token_files_are_gone_at_the_end(tmp_path: Path, clock: Any) -> None:
    run_options = options(tmp_path, steps=2)

    train(run_options, clock)

    assert not Workspace(run_options.out).tokens.exists()


def test_an_unknown_family_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=r"--family is 'mamba'.*ngram, rnn, gru, lstm"):
        options(tmp_path, family="mamba", corpus="/nowhere")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "--steps is 0"),
        ({"steps": 5, "epochs": 1.0}, "--steps and --epochs exclude each other"),
        ({"steps": None, "epochs": 0.0}, "--epochs is 0"),
        ({"steps": None, "budget": "later"}, "--budget is 'later'"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_options_out_of_range_are_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidOption, match=said):
        options(tmp_path, **changes)


def test_a_checkpoint_is_replaced_only_by_force(tmp_path: Path, clock: Any) -> None:
    run_options = options(tmp_path, steps=2)
    train(run_options, clock)

    with pytest.raises(OutputInTheWay, match="--force"):
        Workspace(run_options.out).prepare(force=False)
    Workspace(run_options.out).prepare(force=True)


def test_other_peoples_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("years of work")

    with pytest.raises(OutputInTheWay, match="no checkpoint"):
        Workspace(tmp_path).prepare(force=True)


def test_a_file_is_no_output_directory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")

    with pytest.raises(OutputInTheWay, match="is a file"):
        Workspace(path).prepare(force=True)


def test_a_full_disk_is_reported_in_a_sentence(
    tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    run_options = options(tmp_path, steps=2)
    monkeypatch.setattr(checkpoint, "save", full)

    with pytest.raises(OutputFailed, match=r"Cannot save .* No space left on device"):
        train(run_options, clock)
