"""How much text calls sent and received, and how long they waited for it."""

from dataclasses import dataclass, field

from charlm_server.calls.histogram import Histogram


@dataclass(slots=True)
class Amounts:
    """Amounts of text as callers sent and received it; tokens that were not shown do not count."""

    received_characters: int = 0
    prompt_tokens: int = 0
    generated_characters: int = 0
    generated_tokens: int = 0
    scored_characters: int = 0
    scored_tokens: int = 0
    coded_bytes: int = 0  # of text that was compressed, or restored


@dataclass(slots=True)
class ModelCounters:
    """The amounts of one model. A stream counts while it runs."""

    amounts: Amounts = field(default_factory=Amounts)
    first_character: Histogram = field(default_factory=Histogram)
    between_chunks: Histogram = field(default_factory=Histogram)
