"""How lines of the log are written: as text for people, or as one JSON object a line."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_FIELDS = "charlm_fields"


def fields(**named: str | int | float | None) -> dict[str, Any]:
    """Fields of a log line, for `extra`, without the empty ones."""
    return {_FIELDS: {name: value for name, value in named.items() if value not in ("", None)}}


class TextFormat(logging.Formatter):
    """A sentence, then name=value; a value that could be mistaken is quoted.

    No record can forge a line or send a control code to a terminal: what is not printable is
    escaped, and the lines of a traceback are indented.
    """

    def __init__(self) -> None:
        super().__init__(TEXT)

    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).split("\n")
        return "\n".join("  " + _escaped(line) for line in lines)

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _escaped(record.message)
        pairs = (f" {name}={_shown(value)}" for name, value in _fields_of(record).items())
        return super().formatMessage(record) + "".join(pairs)


class JsonFormat(logging.Formatter):
    """One object a line, whatever a message holds; times are UTC."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _escaped(json.dumps(line, ensure_ascii=False))


FORMATS: dict[str, type[logging.Formatter]] = {"text": TextFormat, "json": JsonFormat}


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = getattr(record, _FIELDS, {})
    return found


def _shown(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and not set(text) & set(' "=') else json.dumps(text)


def _escaped(text: str) -> str:
    """Every character that is not printable as JSON escapes it."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)
