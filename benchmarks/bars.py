"""What is asked of the product in figures, and whether it was found."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Results = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bar:
    """At most (or at least) `asked`; `found` is what the results say."""

    what: str
    asked: float
    found: Callable[[Results], float]
    is_least: bool = False
    why_missed: str = ""

    def row(self, results: Results) -> str:
        """Raises KeyError or ValueError where that part has not run."""
        found = self.found(results)
        is_met = found >= self.asked if self.is_least else found <= self.asked
        verdict = "met" if is_met else f"**missed**. {self.why_missed}".rstrip()
        return f"| {self.what} | {self.sign} {self.asked:g} | {found:.4g} | {verdict} |"

    @property
    def sign(self) -> str:
        return "≥" if self.is_least else "≤"


def table(asked: Sequence[Bar], results: Results) -> list[str]:
    """A row for each; those whose parts have not run say so."""
    return ["| bar | asked | found | |", "|---|---|---|---|", *_rows(asked, results), ""]


def _rows(asked: Sequence[Bar], results: Results) -> Iterator[str]:
    for bar in asked:
        try:
            yield bar.row(results)
        except (KeyError, ValueError):
            yield f"| {bar.what} | {bar.sign} {bar.asked:g} | not measured | |"
