"""Directories on the command line become resource names, or one clear sentence."""

from pathlib import Path

import pytest

from charlm_server.config.checkpoint_names import named_checkpoints
from charlm_server.errors.base import ServeError


def make(directory: Path) -> Path:
    """What looks like a checkpoint from outside."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    return directory


def test_a_checkpoint_is_named_after_its_directory(tmp_path: Path) -> None:
    directory = make(tmp_path / "shakespeare")

    assert named_checkpoints([str(directory)]) == {"models/shakespeare": directory}


def test_a_checkpoint_can_be_given_a_name(tmp_path: Path) -> None:
    directory = make(tmp_path / "run 7")

    assert named_checkpoints([f"poet={directory}"]) == {"models/poet": directory}


def test_a_folder_of_checkpoints_stands_for_all_of_them(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    make(tmp_path / ".b.new-x1y2")  # left behind by an interrupted save

    assert named_checkpoints([str(tmp_path)]) == {"models/a": first, "models/b": second}


def test_a_path_with_an_equals_sign_is_a_path_if_it_exists(tmp_path: Path) -> None:
    directory = make(tmp_path / "a=b" / "c")

    assert named_checkpoints([str(directory)]) == {"models/c": directory}


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("missing", "no directory"),
        ("file", "is a file"),
        ("empty", "not a checkpoint"),
        ("with space", "cannot name a model"),
        ("name!=good", "cannot name a model"),
    ],
)
def test_an_argument_that_names_no_checkpoint_is_refused_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    make(tmp_path / "with space")
    make(tmp_path / "good")

    with pytest.raises(ServeError, match=sentence):
        named_checkpoints([argument])


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a" / "same"), make(tmp_path / "b" / "same")

    with pytest.raises(ServeError, match="models/same; name one of them"):
        named_checkpoints([str(first), str(second)])
