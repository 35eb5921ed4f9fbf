"""Sampling parameters and their ranges."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from charlm_model.errors import InvalidSampling

MAX_TEMPERATURE = 100.0
MAX_BIAS = 100.0
MAX_PENALTY_WINDOW = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """Sampling parameters. The defaults sample from the model's own distribution."""

    temperature: float = 1.0
    """0 is greedy: the most probable token, or the lowest id of several."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""
    top_p: float = 1.0
    """Nucleus sampling: the smallest set of tokens with total probability p."""
    min_p: float = 0.0
    """Keep tokens with at least this fraction of the best token's probability."""
    typical_p: float = 1.0
    """Keep tokens with surprisal nearest the entropy, up to total probability p."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in the window."""
    presence_penalty: float = 0.0
    """Subtracted from the logit of every token in the window."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit for each time it occurs in the window."""
    penalty_window: int = 256
    """Number of last tokens, prompt included, that penalties count."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these token ids."""

    def __post_init__(self) -> None:
        _check(self, "temperature", 0, MAX_TEMPERATURE)
        _check(self, "top_k", 0, 2**31 - 1)
        _check(self, "top_p", 0, 1, low_is_open=True)
        _check(self, "min_p", 0, 1)
        _check(self, "typical_p", 0, 1, low_is_open=True)
        _check(self, "repetition_penalty", 0, 10, low_is_open=True)
        _check(self, "presence_penalty", -MAX_BIAS, MAX_BIAS)
        _check(self, "frequency_penalty", -MAX_BIAS, MAX_BIAS)
        _check(self, "penalty_window", 0, MAX_PENALTY_WINDOW)
        for token_id, bias in self.logit_bias.items():
            if not (isfinite(bias) and -MAX_BIAS <= bias <= MAX_BIAS):
                allowed = f"from {-MAX_BIAS:g} to {MAX_BIAS:g}"
                raise InvalidSampling(f"logit_bias[{token_id}]", bias, allowed)

    @property
    def is_penalizing(self) -> bool:
        return (
            self.repetition_penalty != 1
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
        )

    @property
    def is_plain(self) -> bool:
        """Whether sampling is from the model's own distribution."""
        return self == _PLAIN


def _check(
    params: SamplingParams, name: str, low: float, high: float, *, low_is_open: bool = False
) -> None:
    value = getattr(params, name)
    is_low_enough = value > low if low_is_open else value >= low
    if not (isfinite(value) and is_low_enough and value <= high):
        allowed = f"from {_shown(low)} to {_shown(high)}"
        if low_is_open:
            allowed = f"above {_shown(low)} and at most {_shown(high)}"
        raise InvalidSampling(name, value, allowed)


def _shown(bound: float) -> str:
    """A bound; integers with all digits."""
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


_PLAIN = SamplingParams()
