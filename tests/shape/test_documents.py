"""What a reader of the documents may rely on: lines that fit, links that lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WIDTH = 120
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("README.md"), *ROOT.glob("C*.md"), *ROOT.glob("docs/**/*.md"))
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def lines_outside_fences(path: Path) -> Iterator[tuple[int, str]]:
    fenced = False
    for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def anchors_of(path: Path) -> set[str]:
    """The names that a forge gives to the headings of a document."""
    headings = (line for _, line in lines_outside_fences(path) if line.startswith("#"))
    plain = (re.sub(r"[^\w\- ]", "", each.lstrip("#").strip().lower()) for each in headings)
    return {each.replace(" ", "-") for each in plain}


def test_the_documents_are_found() -> None:
    assert {Path("README.md"), Path("CONTRIBUTING.md"), Path("docs/index.md")} <= {*DOCUMENTS}


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_a_line_fits_the_screen(path: Path) -> None:
    """Rows of tables and lines of JSON cannot be wrapped."""
    text = (ROOT / path).read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith(("|", "{")))

    assert [line for line in lines if len(line) > WIDTH] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_a_link_leads_to_a_file_and_its_heading(path: Path) -> None:
    dead = []
    for number, line in lines_outside_fences(path):
        for link in LINK.findall(line):
            if link.startswith(("https://", "http://")):
                continue
            name, _, anchor = link.partition("#")
            target = (ROOT / path.parent / name).resolve() if name else ROOT / path
            found = target.exists() and target.is_relative_to(ROOT)
            if not found or (anchor and anchor not in anchors_of(target.relative_to(ROOT))):
                dead.append(f"{path}:{number}: {link}")

    assert dead == []


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {link.partition("#")[0] for link in LINK.findall(index)}
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}

    assert pages <= linked


@pytest.mark.parametrize("folder", ["docs/log", "docs/decisions"])
def test_every_page_of_a_folder_is_in_its_readme(folder: str) -> None:
    readme = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / folder).glob("*.md")} - {"README.md"}

    assert pages <= set(LINK.findall(readme))
