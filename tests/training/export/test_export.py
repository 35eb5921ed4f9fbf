"""An exported step computes the checkpoint's log-probs, for any number of rows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from charlm_model import checkpoint
from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.text.vocabulary import CharVocabulary
from charlm_training.errors import InvalidOption, NotPossible
from charlm_training.export.bundle import FORMATS, export
from charlm_training.export.step_program import step_program
from charlm_training.run.ngram_baseline import fit_ngram

FAMILIES = ["rnn", "gru", "lstm", "transformer"]
SIZES = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "context_length": 6}
SIZES |= {"kernel_size": 3, "pair_rows": 20}
STEP_FORMATS = [each for each in FORMATS if each != "hf"]
CHARACTERS = "abcdefgh \n"


def loud(family: str) -> Any:
    """A model whose every weight matters: fresh ones hold zeros."""
    torch.manual_seed(3)
    vocab_size = CharVocabulary(CHARACTERS).size
    model = build(ModelConfig(family=family, vocab_size=vocab_size, **SIZES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> checkpoint.Checkpoint:
    directory = tmp_path / request.param
    checkpoint.save(directory, loud(request.param), CharVocabulary(CHARACTERS), {})
    return checkpoint.load(directory)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_rows", [1, 5])
def test_steps_are_those_of_the_model_beyond_its_window(family: str, num_rows: int) -> None:
    model, length = loud(family), 20
    made = step_program(model)
    ids_BT = torch.randint(1, model.config.vocab_size, (num_rows, length))
    expected_BTV, _ = model.advance(ids_BT, model.initial_state(num_rows))

    step = made.step()
    state = tuple(each.expand(num_rows, *each.shape[1:]) for each in made.initial)
    logits = []
    with torch.no_grad():
        for ids_B in ids_BT.unbind(1):
            logits_BV, *after = step(ids_B, *state)
            logits.append(logits_BV)
            state = tuple(after)

    torch.testing.assert_close(torch.stack(logits, 1), expected_BTV, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("saved", FAMILIES, indirect=True)
@pytest.mark.parametrize("format_name", STEP_FORMATS)
def test_an_export_agrees_with_the_checkpoint_and_says_how_to_run_it(
    saved: checkpoint.Checkpoint, format_name: str, tmp_path: Path
) -> None:
    out = tmp_path / "exported"

    worst = export(saved, format_name, out)

    assert worst < 1e-4
    told = json.loads((out / "export.json").read_text())
    assert told["digest"] == saved.digest
    assert set(told["state"]) == set(told["inputs"][1:])
    names = {path.name for path in out.iterdir()}
    ending = "pt2" if format_name == "torch-export" else "onnx"
    assert names == {f"model.{ending}", "export.json", "vocabulary.json"}


@pytest.mark.slow
@pytest.mark.parametrize("saved", ["gru"], indirect=True)
def test_what_computes_something_else_is_not_written(
    saved: checkpoint.Checkpoint, tmp_path: Path
) -> None:
    golden = saved.report["golden"]
    moved = {**golden, "logprobs": [each + 0.01 for each in golden["logprobs"]]}
    wrong = replace(saved, report={**saved.report, "golden": moved})

    with pytest.raises(NotPossible, match="nothing was written"):
        export(wrong, "torch-export", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_ngram_is_no_graph(read: Any, tmp_path: Path) -> None:
    with pytest.raises(NotPossible, match="a table of counts"):
        step_program(fit_ngram(read("abcab. " * 60), order=2))


@pytest.mark.parametrize("saved", ["rnn"], indirect=True)
def test_an_unknown_format_is_refused(saved: checkpoint.Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="'gguf'"):
        export(saved, "gguf", tmp_path / "out")
