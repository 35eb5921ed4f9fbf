"""Errors about compressed data."""

from charlm_server.errors.base import CharlmError


class CodecMismatch(CharlmError):
    """Compressed with another model: what its bits mean is not known here."""

    reason = "CODEC_MODEL_MISMATCH"

    def __init__(self, made_with: str, served: str) -> None:
        self.made_with, self.served = made_with, served
        super().__init__(
            f"This was compressed with the checkpoint {made_with}..., but the model served here is "
            f"{served}...; name the model that compressed it."
        )

    @property
    def metadata(self) -> dict[str, str]:
        return {"made_with": self.made_with, "served": self.served}


class NumericsMismatch(CodecMismatch):
    """Compressed in another arithmetic, whose last bits differ."""

    reason = "CODEC_NUMERICS_MISMATCH"

    def __init__(self, served: str) -> None:
        self.made_with, self.served = "", served
        CharlmError.__init__(
            self,
            f"This was compressed by another arithmetic than this server's ({served}): by another "
            "version of charlm's kernels, a GPU, or another architecture. Decompress it there.",
        )


class CodecDamaged(CharlmError):
    """A frame of a compressed form is damaged or missing; `offset` is where, in bytes."""

    reason = "CODEC_CHECKSUM"

    def __init__(self, frame: int, offset: int) -> None:
        self.frame, self.offset = frame, offset
        super().__init__(
            f"The compressed form is damaged: frame {frame}, at byte {offset}, is changed, missing "
            "or cut off. Skip damaged frames to restore the others."
        )

    @property
    def metadata(self) -> dict[str, str]:
        return {"frame": str(self.frame), "offset": str(self.offset)}


class CodecHeaderDamaged(CodecDamaged):
    """What should be a compressed form does not begin as one."""

    reason = "CODEC_HEADER"

    def __init__(self) -> None:
        self.frame, self.offset = 0, 0
        CharlmError.__init__(
            self,
            "This is no compressed form, or its first bytes are damaged: it does not begin with "
            "the header that Compress writes.",
        )
