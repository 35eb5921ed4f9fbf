"""Parses regular expressions with the syntax and meaning of Python's `re`.

Unsupported: what no finite automaton can match, and what has no meaning for a match of the whole
text.
"""

import re
import warnings
from dataclasses import dataclass
from typing import NoReturn

from charlm_model.constraints.character_sets import Ranges, ranges_of_characters, ranges_of_class
from charlm_model.errors import InvalidConstraint

MAX_PATTERN_LENGTH = 10_000
MAX_DEPTH = 60
MAX_CLASSES = 100  # distinct ones: each is tried on every character, some milliseconds
_QUANTIFIER = re.compile(r"(?:[*+?]|\{(?!\})(\d*)(?:(,)(\d*))?\})")
_BOUNDS = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_ESCAPE = re.compile(
    r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|N\{[^}]*\}|0[0-7]{0,2}|.)", re.DOTALL
)
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_DOT = re.compile(r"\.")
_FLAGS = re.compile(r"\(\?([aiLmsux]+)\)")
_GROUP = re.compile(r"\((?:\?(?::|P<\w+>))?")


@dataclass(frozen=True, slots=True)
class Characters:
    """One character of a set."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Concatenation:
    """All parts, one after the other."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    """Any one of the parts."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    """The part at least `low` and at most `high` times; None means unbounded."""

    part: "Node"
    low: int
    high: int | None


Node = Characters | Concatenation | Alternation | Repetition


def parse(pattern: str) -> Node:
    """The tree of a pattern that the whole text must match. Raises InvalidConstraint."""
    if len(pattern) > MAX_PATTERN_LENGTH:
        allowed = f"at most {MAX_PATTERN_LENGTH} characters long"
        raise InvalidConstraint("regex", len(pattern), allowed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        allowed = f"a regular expression that Python's re accepts ({error})"
        raise InvalidConstraint("regex", pattern, allowed) from None
    return _Parser(pattern).tree()


class _Parser:
    """A recursive-descent parser of patterns that `re` has accepted."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self._at, self._depth, self._flags = pattern, 0, 0, 0
        self._classes: set[str] = set()
        self._take_flags()

    def tree(self) -> Node:
        self._skip("^") or self._skip(r"\A")
        return self._alternation()

    def _take_flags(self) -> None:
        match = _FLAGS.match(self._pattern)
        if match is None:
            return
        letters = match[1]
        if set(letters) - set("aius"):
            self._refuse("flags other than a, i, s and u")
        self._flags = sum(getattr(re, letter.upper()) for letter in set(letters))
        self._at = match.end()

    def _alternation(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"groups more than {MAX_DEPTH} deep")
        parts = [self._concatenation()]
        while self._skip("|"):
            parts.append(self._concatenation())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else Alternation(tuple(parts))

    def _concatenation(self) -> Node:
        parts: list[Node] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            if not self._skip_end():
                parts.append(self._repeated(self._atom()))
        return parts[0] if len(parts) == 1 else Concatenation(tuple(parts))

    def _skip_end(self) -> bool:
        """Skip an anchor at the very end, which holds anyway."""
        rest = self._pattern[self._at :]
        return rest in ("$", r"\Z") and self._depth == 1 and self._skip(rest)

    def _repeated(self, node: Node) -> Node:
        while match := _QUANTIFIER.match(self._pattern, self._at):
            self._at = match.end()
            low, high = _bounds(match)
            if not self._skip("?") and self._skip("+"):
                self._refuse("possessive quantifiers")
            node = Repetition(node, low, high)
        return node

    def _atom(self) -> Node:
        first = self._pattern[self._at]
        if first == "(":
            return self._group()
        if first == "[":
            return self._class(_CLASS)
        if first == "\\":
            return self._escape()
        if first in "^$" or _QUANTIFIER.match(self._pattern, self._at):
            self._refuse("anchors, but for one that begins and one that ends it")
        if first == ".":
            return self._class(_DOT)
        self._at += 1
        return self._literal(first)

    def _literal(self, character: str) -> Node:
        if self._flags & re.IGNORECASE:
            return self._asked(re.escape(character))
        return Characters(ranges_of_characters(character))

    def _group(self) -> Node:
        match = _GROUP.match(self._pattern, self._at)
        assert match is not None
        self._at = match.end()
        if self._pattern[self._at] == "?":
            self._refuse("look-around, conditions, comments, atomic groups and flags in the middle")
        node = self._alternation()
        self._at += 1  # the closing parenthesis, which re has checked
        return node

    def _class(self, syntax: re.Pattern[str]) -> Node:
        match = syntax.match(self._pattern, self._at)
        assert match is not None
        self._at = match.end()
        return self._asked(match[0])

    def _asked(self, source: str) -> Characters:
        self._classes.add(source)
        if len(self._classes) > MAX_CLASSES:
            self._refuse(f"more than {MAX_CLASSES} different classes of characters")
        return Characters(ranges_of_class(source, self._flags))

    def _escape(self) -> Node:
        letter = self._pattern[self._at + 1]
        if letter in "bBAZ":
            self._refuse(rf"word boundaries and anchors such as \{letter}")
        if letter in "123456789":
            self._refuse(rf"back-references such as \{letter}")
        return self._class(_ESCAPE)

    def _skip(self, text: str) -> bool:
        is_here = self._pattern.startswith(text, self._at)
        self._at += len(text) if is_here else 0
        return is_here

    def _refuse(self, what: str) -> NoReturn:
        """Raise for an unsupported construct."""
        raise InvalidConstraint("regex", self._pattern, f"without {what}")


def _bounds(match: re.Match[str]) -> tuple[int, int | None]:
    if match[0] in _BOUNDS:
        return _BOUNDS[match[0]]
    low, comma, high = match.groups()
    if comma is None:
        return int(low), int(low)
    return int(low or 0), int(high) if high else None
