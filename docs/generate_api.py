"""Writes docs/api.md from the docstrings of `charlm_client`; `--check` only compares.

An exported name has a section: the signature, the docstring, and for a dataclass its fields with
their docstrings, which Python itself does not keep, so the sources are parsed for them.
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

import charlm_client

PAGE = Path(__file__).with_name("api.md")
INTRODUCTION = """# The Python client

All public names of `charlm_client`, from their docstrings; `make api` writes this page.
Times are in seconds; log-probs are natural logarithms (nats).
"""


def main() -> None:
    page = INTRODUCTION + "".join(f"\n{section}" for section in sections())
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
            sys.exit("docs/api.md is out of date. Run: make api")
    else:
        PAGE.write_text(page, encoding="utf-8")


def sections() -> Iterator[str]:
    """Clients first, then values, then errors; each group by name."""
    exported = [getattr(charlm_client, name) for name in charlm_client.__all__]
    for each in sorted(exported, key=lambda each: (rank(each), each.__name__)):
        yield class_section(each)


def rank(kind: type) -> int:
    if issubclass(kind, Exception):
        return 2
    return 0 if public_methods(kind) else 1


def class_section(kind: type) -> str:
    lines = [f"## {kind.__name__}", ""]
    if issubclass(kind, Exception):
        lines += [f"An error; a kind of `{kind.__mro__[1].__name__}`.", ""]
    elif is_dataclass(kind) or kind in (charlm_client.Client, charlm_client.SyncClient):
        lines += code(f"class {kind.__name__}", inspect.signature(kind))
    lines += [inspect.getdoc(kind) or "", ""]
    if issubclass(kind, Enum):
        lines += [", ".join(f"`{member.name}`" for member in kind) + ".", ""]
    documented = [f"- `{name}`: {' '.join(text.split())}" for name, text in attribute_docs(kind)]
    lines += [*documented, ""] if documented else []
    methods = public_methods(kind)
    blocking = [f"`{name}`" for name, method in methods if hasattr(method, "__wrapped__")]
    if blocking:
        names = f"Methods of the asynchronous class, blocking: {', '.join(blocking)}."
        lines += [textwrap.fill(names, 100), ""]
    for name, method in methods:
        if f"`{name}`" not in blocking:
            lines += method_section(f"{kind.__name__}.{name}", method)
    return "\n".join(lines)


def method_section(name: str, method: Any) -> list[str]:
    lines = [f"### {name}", ""]
    if not isinstance(method, property):
        prefix = "async def " if inspect.iscoroutinefunction(method) else "def "
        lines += code(prefix + name.partition(".")[2], inspect.signature(method))
    return [*lines, inspect.getdoc(method) or "", ""]


def public_methods(kind: type) -> list[tuple[str, Any]]:
    return [
        (name, method)
        for name, method in vars(kind).items()
        if (inspect.isfunction(method) or isinstance(method, property)) and name[0] != "_"
    ]


def attribute_docs(kind: type) -> Iterator[tuple[str, str]]:
    """The names of attributes, each with the string that follows its definition."""
    nodes = ast.walk(ast.parse(inspect.getsource(kind)))
    for node in (each for each in nodes if isinstance(each, ast.ClassDef | ast.FunctionDef)):
        for statement, after in pairwise(node.body):
            is_definition = isinstance(statement, ast.AnnAssign | ast.Assign)
            value = after.value if isinstance(after, ast.Expr) else None
            if is_definition and isinstance(value, ast.Constant) and isinstance(value.value, str):
                targets = getattr(statement, "targets", None) or [statement.target]
                yield ast.unparse(targets[0]).removeprefix("self."), value.value


def code(name: str, signature: inspect.Signature) -> list[str]:
    """A signature in a fence, a parameter a line, without `self` and module names."""
    parameters = [plain(p) for p in signature.parameters.values() if p.name != "self"]
    result = signature.return_annotation
    shown = str(signature.replace(parameters=parameters, return_annotation=Written(result)))
    shown = shown.replace("<factory>", "{}")
    shown = shown.removesuffix(" -> None") if name.startswith("class ") else shown
    if len(shown) > 80:
        inner = ",\n    ".join(split_arguments(shown[1 : shown.rindex(")")]))
        shown = f"(\n    {inner},\n){shown[shown.rindex(')') + 1 :]}"
    return ["```text", name + shown, "```", ""]


class Written:
    """An annotation as it stands in a source: no quotes around it, no names of modules."""

    def __init__(self, annotation: Any) -> None:
        written = (
            annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        )
        self.text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", written)

    def __repr__(self) -> str:
        return self.text


def plain(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(annotation=Written(parameter.annotation))


def split_arguments(text: str) -> list[str]:
    """The arguments between commas that no bracket holds."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


if __name__ == "__main__":
    main()
