"""Size flags: which family uses which, and errors of sizes under the names of their flags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

from charlm_model.errors import InvalidConfig
from charlm_training.errors import InvalidOption
from charlm_training.planning.options import SizeOptions, flag_of

_NAMES = tuple(field.name for field in fields(SizeOptions))
_NOT_RECURRENT = {"num_heads", "context_length"}
# A Transformer's token vectors are as wide as the model; an n-gram has an order and no more.
UNUSED: dict[str, set[str]] = {
    "ngram": set(_NAMES) - {"context_length"},
    "rnn": _NOT_RECURRENT,
    "gru": _NOT_RECURRENT,
    "lstm": _NOT_RECURRENT,
    "transformer": {"embedding_size"},
}


def refuse_unused(family: str, size: SizeOptions) -> None:
    """Raises InvalidOption for a size that the family would ignore."""
    for name in _NAMES:
        value = getattr(size, name)
        if value is not None and name in UNUSED.get(family, ()):
            users = ", ".join(other for other, unused in UNUSED.items() if name not in unused)
            raise InvalidOption(
                f"{flag_of(name)} is {value}, but --family {family} has no use for it; leave it "
                f"out, or train a family that uses it ({users})."
            )


@contextmanager
def named_as_flags() -> Iterator[None]:
    """Turns InvalidConfig into InvalidOption: --hidden-size for hidden_size."""
    try:
        yield
    except InvalidConfig as error:
        names = "|".join(_NAMES)
        sentence = re.sub(rf"\b({names})\b", lambda found: flag_of(found[0]), str(error))
        if sentence == str(error):  # not caused by a flag
            raise
        raise InvalidOption(sentence) from error
