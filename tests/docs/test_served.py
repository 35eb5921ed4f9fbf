"""Documents about the calls of a server run from top to bottom, beside `charlm serve book`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import Command
from tests.docs.reader import Reader

pytestmark = pytest.mark.slow

DOCUMENTS = [
    "docs/benchmarking.md",
    "docs/compression.md",
    "docs/constraints.md",
    "docs/generation.md",
    "docs/harness.md",
    "docs/models.md",
    "docs/scoring.md",
    "docs/states.md",
]


@pytest.fixture(scope="module")
def _server(
    tmp_path_factory: pytest.TempPathFactory, belongings: Path, network: list[str]
) -> Iterator[None]:
    folder = shutil.copytree(
        belongings, tmp_path_factory.mktemp("server") / "folder", symlinks=True
    )
    with Reader(folder, network) as reader:
        reader.serve(Command("README.md", "charlm serve book"))
        yield


@pytest.mark.usefixtures("_server")
@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_runs_as_printed(document: str, reader: Reader) -> None:
    reader.read(document)
