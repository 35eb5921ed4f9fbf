"""Options of `charlm score` that are the same for a text, a file and lines."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreOptions:
    """The flags of one call. `model` may be empty where one is loaded."""

    model: str
    context: str
    replace_unknown: bool
    total_only: bool
    as_json: bool
