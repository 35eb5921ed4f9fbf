"""The sizes that define a model. Imports no torch."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from charlm_model.errors import InvalidConfig

UNITS = ("stream", "line")
_RANGES: dict[str, tuple[int, int]] = {
    "vocab_size": (2, 65_536),
    "embedding_size": (1, 8_192),
    "hidden_size": (1, 8_192),
    "num_layers": (1, 64),
    "num_heads": (1, 128),
    "context_length": (1, 65_536),
    "kernel_size": (1, 64),
    "pair_rows": (0, 1 << 20),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A model's family and sizes; a family ignores the sizes that it does not use."""

    family: str
    vocab_size: int
    unit: str = "stream"
    embedding_size: int = 64
    hidden_size: int = 256
    num_layers: int = 1
    num_heads: int = 4
    dropout: float = 0.0
    context_length: int = 256
    """Transformer: the attention window, in tokens. N-gram: the order, in tokens of context."""
    kernel_size: int = 1
    """Number of tokens in the input of a step, the newest included."""
    pair_rows: int = 0
    """Rows of a hash table of vectors for pairs of neighboring tokens; 0 for none."""

    def __post_init__(self) -> None:
        _require(isinstance(self.family, str), "family", self.family, "a name")
        _require(self.unit in UNITS, "unit", self.unit, " or ".join(UNITS))
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            allowed = f"a whole number from {low} to {high}"
            _require(type(value) is int and low <= value <= high, name, value, allowed)
        is_share = type(self.dropout) in (int, float) and 0 <= self.dropout < 1
        _require(is_share, "dropout", self.dropout, "at least 0 and below 1")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "ModelConfig":
        """Raises InvalidConfig for a field that is unknown, missing or out of range."""
        known = {field.name for field in fields(cls)}
        for name in data:
            _require(name in known, name, data[name], "absent: the field is unknown")
        for name in ("family", "vocab_size"):
            _require(name in data, name, "missing", "given")
        return cls(**data)


def _require(is_met: bool, name: str, value: object, allowed: str) -> None:
    if not is_met:
        raise InvalidConfig(f"{name} is {value!r}; it must be {allowed}.")
