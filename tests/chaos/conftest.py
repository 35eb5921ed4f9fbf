"""What all trials share: checkpoints to serve, and figures that are printed at the end."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from charlm_model.checkpoint import save
from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.text.vocabulary import CharVocabulary

ALPHABET = "abcdefghijklmnopqrstuvwxyz .\n"
FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Tells what was measured, at the end of the run."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def fox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GRU: its steps are short, so that calls come and go quickly."""
    return saved(tmp_path_factory.mktemp("models") / "fox", family="gru", hidden_size=64)


@pytest.fixture(scope="session")
def whale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LSTM whose steps are most of what a server does."""
    folder = tmp_path_factory.mktemp("models")
    return saved(folder / "whale", family="lstm", hidden_size=512, num_layers=2)


def saved(directory: Path, **sizes: object) -> Path:
    torch.manual_seed(1)
    vocabulary = CharVocabulary(ALPHABET)
    model = build(ModelConfig(vocab_size=vocabulary.size, **sizes))  # type: ignore[arg-type]
    save(directory, model, vocabulary, {})
    return directory
