"""The fenced blocks of a document, and the commands of a block of shell lines."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROMPT = "$ "


@dataclass(frozen=True)
class Block:
    """What stands between two fences; `title` is the file that the block is the content of."""

    document: str
    line: int
    language: str
    title: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command of a shell block, as printed, with its comment and all its lines."""

    place: str
    text: str


def documents() -> list[str]:
    """All but the log, which tells of commands of its day."""
    found = [
        *ROOT.glob("*.md"),
        *(
            path
            for path in ROOT.glob("docs/**/*.md")
            if "log" not in str(path.relative_to(ROOT)).lower()
        ),
    ]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.finditer(r"(?ms)^```(\w*)(?: title=(\S+))?\n(.*?)^```$", text)
    return [
        Block(document, text.count("\n", 0, match.start()) + 2, match[1], match[2] or "", match[3])
        for match in found
    ]


def prose(document: str) -> str:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.sub(r"(?ms)^```.*?^```$", "", text)


def inline_code(document: str) -> list[str]:
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(document))]


def commands(block: Block) -> list[Command]:
    """In a block with prompts, lines without one are output, and so no commands."""
    lines = list(enumerate(block.text.splitlines(), block.line))
    if any(line.startswith(PROMPT) for _, line in lines):
        lines = [(n, line.removeprefix(PROMPT)) for n, line in lines if line.startswith(PROMPT)]
    return [Command(f"{block.document}:{n}", text) for n, text in _joined(lines)]


def _joined(lines: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    begun: list[str] = []
    for number, line in lines:
        begun.append(line)
        text = "\n".join(begun)
        if _is_whole(text):
            if words(text):
                yield number - len(begun) + 1, text
            begun = []
    assert not begun, f"an open quote or a last line with a backslash: {begun}"


def _is_whole(text: str) -> bool:
    try:
        words(text)
    except ValueError:  # an open quote
        return False
    return not text.endswith("\\")


def words(text: str) -> list[str]:
    """The words of a command without its comment. Raises ValueError where a quote is open."""
    return shlex.split(text, comments=True)
