"""What the tests of training share: one thread, a clock that is told the time, tiny texts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from charlm_training.corpus.dataset import Data, DataOptions, read_data
from charlm_training.corpus.reader import open_corpus


@dataclass
class FakeClock:
    """Moves when told, and by `tick_s` whenever it is looked at."""

    now: float = 1000.0
    tick_s: float = 0.0

    def __call__(self) -> float:
        self.now += self.tick_s
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Data]:
    """Reads a text as a run would."""

    def read_text(text: str, **options: str | int | float) -> Data:
        path = tmp_path / "corpus.txt"
        path.write_bytes(text.encode())
        corpus = open_corpus(str(path))
        return read_data(corpus, corpus.scan(), DataOptions(**options), tmp_path / "tokens")

    return read_text
