"""Texts that every Python installation carries, so that a first model needs no download."""

import sysconfig
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics

# Tests hold deliberately broken sources; site-packages differ from machine to machine.
LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3"})


def python_docs() -> Iterator[tuple[str, str]]:
    """The topics of the language reference, as `help()` shows them."""
    for label in sorted(topics):
        yield f"pydoc_data.topics[{label!r}]", topics[label]


def python_source() -> Iterator[tuple[str, str]]:
    """The sources of the standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if not LEFT_OUT.intersection(path.relative_to(root).parts):
            with tokenize.open(path) as file:
                yield str(path), file.read()


BUILTIN_TEXTS: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
    "python-docs": python_docs,
    "python-source": python_source,
}
