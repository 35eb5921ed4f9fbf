"""Documents that start servers of their own run from top to bottom."""

import pytest

from tests.docs.reader import Reader

pytestmark = pytest.mark.slow

DOCUMENTS = [
    "README.md",
    "docs/compare.md",
    "docs/deployment.md",
    "docs/inference.md",
    "docs/observability.md",
    "docs/operations.md",
    "docs/resume.md",
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_runs_as_printed(document: str, reader: Reader) -> None:
    reader.read(document)
