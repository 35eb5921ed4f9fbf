"""A folder with what the reader has, and a network for the documents to be read in."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.belongings import make
from tests.docs.network import own_network
from tests.docs.reader import Reader


@pytest.fixture(scope="session")
def network() -> Iterator[list[str]]:
    with own_network() as words:
        yield words


@pytest.fixture(scope="session")
def belongings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("belongings")
    make(folder)
    return folder


@pytest.fixture
def reader(tmp_path: Path, belongings: Path, network: list[str]) -> Iterator[Reader]:
    folder = shutil.copytree(belongings, tmp_path / "reader", symlinks=True)
    with Reader(folder, network) as reader:
        yield reader
