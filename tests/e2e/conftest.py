"""Real processes on real sockets: a checkpoint with random weights, and a server that serves it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from charlm_model.checkpoint import save
from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.text.vocabulary import ByteVocabulary, CharVocabulary

CHARLM = [sys.executable, "-m", "charlm_client"]
TEXT = "The quick brown fox jumps over the lazy dog.\n"
STOP_TIMEOUT_S = 30


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two checkpoints: `fox` (GRU, characters) and `bytes` (LSTM, bytes)."""
    folder = tmp_path_factory.mktemp("models of mine")  # a path with spaces, always
    torch.manual_seed(1)
    characters = CharVocabulary.from_text(TEXT)
    small = {"hidden_size": 16, "embedding_size": 8}
    gru = build(ModelConfig(family="gru", vocab_size=characters.size, **small))
    gru.head.bias.data[0] = -60.0  # texts never end, so that their lengths are known
    save(folder / "fox", gru, characters, {})
    lstm = build(ModelConfig(family="lstm", vocab_size=257, **small))
    save(folder / "bytes", lstm, ByteVocabulary(), {})
    return folder


@pytest.fixture(scope="session")
def server_address(checkpoints: Path) -> Iterator[str]:
    """A server process on a free port, stopped by SIGTERM; it must leave with 0."""
    command = [*CHARLM, "serve", str(checkpoints), "--port", "0"]
    environment = {**os.environ, "CHARLM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        ready_line = server.stdout.readline().strip()
        yield ready_line.rsplit(" ", 1)[-1]
        server.terminate()
        assert server.wait(STOP_TIMEOUT_S) == 0
