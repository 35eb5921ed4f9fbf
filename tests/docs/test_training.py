"""The document about training runs from top to bottom."""

import pytest

from tests.docs.reader import Reader

pytestmark = pytest.mark.slow


def test_a_document_runs_as_printed(reader: Reader) -> None:
    reader.read("docs/training.md")
