"""Errors of resume tokens.

CharlmError
  ResumeMismatch      the stream to be resumed had another version, model, request or text
  ResumeTokenDamaged  the token was changed or cut off
"""

from charlm_server.errors.base import CharlmError

_RESUME_MISMATCHES = {
    "VERSION": "The resume token was made by another version of the server",
    "MODEL": "The stream was made by another checkpoint, or with another arithmetic",
    "REQUEST": "The stream was made from another request",
    "RECEIVED": "The received ids are not those that the stream sent",
}


class ResumeMismatch(CharlmError):
    """A resume token does not belong to the request; `what` names the part that differs."""

    def __init__(self, what: str, detail: str = "") -> None:
        self.reason = f"RESUME_{what}_MISMATCH"
        shown = f" ({detail})" if detail else ""
        super().__init__(
            f"{_RESUME_MISMATCHES[what]}{shown}; resume with the same request, token and ids as "
            "the stream that broke off, or start again without them."
        )


class ResumeTokenDamaged(CharlmError):
    """The resume token was changed or cut off."""

    reason = "RESUME_TOKEN_DAMAGED"

    def __init__(self, num_bytes: int, num_expected: int) -> None:
        super().__init__(
            f"The resume token ({num_bytes} bytes of {num_expected}) was changed or cut off; send "
            "the last chunk's token unchanged."
        )
