"""One line in the log for every call. No texts, and nothing of the metadata but the request id."""

import logging

from charlm_server.calls.call import Call
from charlm_server.observing.log_format import fields

logger = logging.getLogger(__name__)


class CallLog:
    """Observes every call; lines are of level INFO."""

    def began(self, call: Call) -> None:
        """Writes the line."""

    def ended(self, call: Call) -> None:
        logger.info("%s %s", call.method, call.code, extra=fields(**_told_of(call)))


def _told_of(call: Call) -> dict[str, str | int | float | None]:
    amounts = call.amounts
    return {
        "method": call.method,
        "code": call.code,
        "reason": call.reason,
        "request_id": call.request_id,
        "caller": call.caller,
        "model": call.model,
        "trace_id": call.trace_id,
        "characters_in": amounts.received_characters,
        "characters_out": amounts.generated_characters,
        "characters_scored": amounts.scored_characters,
        "queued_s": _between(call.submitted_at, call.started_at),
        "first_character_s": _between(call.began_at, call.first_at),
        "duration_s": _between(call.began_at, call.ended_at),
    }


def _between(earlier: float, later: float) -> float | None:
    """Seconds, if both moments have come."""
    return round(later - earlier, 6) if earlier and later else None
