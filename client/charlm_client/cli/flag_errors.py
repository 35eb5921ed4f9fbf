"""Errors about a field of a request, reworded to name the flag that set it."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from charlm_client.errors import InvalidRequest

Flags = Mapping[str, str]
"""The flag or argument that sets a field, by the field's path on the wire without indexes."""

COMMON: Flags = MappingProxyType({"model": "--model", "unknown_characters": "--replace-unknown"})
_INDEX = re.compile(r"\[[^\]]*\]")
_FIELD_IN_ADVICE = re.compile(r"`([a-z_.]+)`")


def about_flag(error: InvalidRequest, flags: Flags) -> InvalidRequest:
    """The same error with the flag's name in place of the field's, or as it is without a flag."""
    known = {**COMMON, **flags}
    flag = _flag_of(error.field, known)
    if flag is None:
        return error
    message = str(error)
    if message.startswith(error.field):
        message = flag + message.removeprefix(error.field)
    else:
        message = f"{flag}: {message}"
    message = _FIELD_IN_ADVICE.sub(lambda found: known.get(found[1], found[0]), message)
    if error.reason == "UNKNOWN_CHARACTER":
        message += " The flag --replace-unknown replaces it."
    return type(error)(message, reason=error.reason, field=error.field)


def _flag_of(field: str, flags: Flags) -> str | None:
    """The flag of the field, or of the closest field that contains it."""
    path = _INDEX.sub("", field)
    while path:
        if path in flags:
            return flags[path]
        path = path.rpartition(".")[0]
    return None
