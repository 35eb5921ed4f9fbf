"""A language that an output must be in."""

from dataclasses import dataclass
from typing import Literal

ConstraintMode = Literal["local_mask", "rejection", "smc"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """Exactly one of `regex`, `choices` and `allowed_characters`, and how it acts.

    `local_mask` excludes impossible tokens step by step; `rejection` and `smc` sample from the
    model's distribution given that the whole output is in the language, exactly or nearly so.
    """

    regex: str | None = None
    choices: tuple[str, ...] = ()
    allowed_characters: str | None = None
    mode: ConstraintMode = "local_mask"
    num_particles: int | None = None
    """For smc, in [1, 256]. None means the server's default."""
    max_attempts: int | None = None
    """For rejection, in [1, 10000]. None means the server's default."""
