"""What the reader of the documents has: texts, checkpoints, certificates and tokens."""

import json
import random
import shutil
import string
import sys
from pathlib import Path

from charlm_training.corpus.dataset import DataOptions
from charlm_training.monitoring.events import Event
from charlm_training.planning.options import SizeOptions, TrainOptions
from charlm_training.run.run import Run
from charlm_training.run.workspace import Workspace
from tests.server.certificates import Authority

WORDS = "it was a dark and stormy night the old house return function name class To be or not"
LONG_TEXTS = ["book.txt", "my-letters.txt"]
SHORT_TEXTS = [
    "other.txt", "names.txt", "shakespeare.txt", "large.txt",
    "war-and-peace.txt", "report.txt", "documents.txt",
]  # fmt: skip


def make(folder: Path) -> None:
    """Fill an empty folder."""
    text = prose(20_000)
    for name in LONG_TEXTS:
        (folder / name).write_text(text, encoding="utf-8")
    for name in SHORT_TEXTS:
        (folder / name).write_text(prose(1_000), encoding="utf-8")
    lines = [json.dumps({"text": line}) for line in text.splitlines()[:3]]
    (folder / "documents.jsonl").write_text("\n".join(lines), encoding="utf-8")
    train(folder, "book", family="lstm", vocabulary="char")
    train(folder, "docs", family="ngram", vocabulary="byte")
    for copy in ("runs/best", "letters", "models/2024-11", "models/old"):
        shutil.copytree(folder / "book", folder / copy)
    for copy in ("models/docs", "models/code", "source"):
        shutil.copytree(folder / "docs", folder / copy)
    secure(folder)
    (folder / ".venv").symlink_to(sys.prefix)


def prose(length: int) -> str:
    """Lines of words, and every printable character, for prompts that have it."""
    draws = random.Random(1)
    lines = []
    while sum(map(len, lines)) < length:
        line = draws.choices(WORDS.split(), k=draws.randint(4, 12))
        lines.append(" ".join([*line, draws.choice(string.printable.strip())]))
    return "\n".join(lines) + "\n"


def train(folder: Path, name: str, *, family: str, vocabulary: str) -> None:
    size = {"hidden_size": 16, "num_layers": 1, "batch_size": 8, "window_length": 32}
    options = TrainOptions(
        corpus=str(folder / "book.txt"),
        out=folder / name,
        family=family,
        steps=None if family == "ngram" else 30,
        data=DataOptions(vocabulary=vocabulary),
        size=SizeOptions() if family == "ngram" else SizeOptions(**size),
    )
    Workspace(options.out).prepare(force=False, resume=False)
    Run(options, _unheard, lambda: False).train()


def _unheard(event: Event) -> None:
    """Nobody watches."""


def secure(folder: Path) -> None:
    authority = Authority()
    (folder / "ca.pem").write_bytes(authority.pem)
    for cert, key in (("server.pem", "server.key"), ("c.pem", "k.pem")):
        pair = authority.issue("localhost")
        (folder / cert).write_bytes(pair.cert)
        (folder / key).write_bytes(pair.key)
    lines = ["[[tokens]]", 'name = "bob"', f'sha256 = "{"0" * 64}"', 'roles = ["generate"]', ""]
    (folder / "tokens.toml").write_text("\n".join(lines), encoding="utf-8")
