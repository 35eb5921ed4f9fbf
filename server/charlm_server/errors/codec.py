"""Errors of compressed data.

CharlmError
  CodecMismatch         it was compressed with another model
    NumericsMismatch    it was compressed with another arithmetic
  CodecDamaged          one of its frames is damaged
    CodecHeaderDamaged  it does not begin with a header
"""

from charlm_server.errors.base import CharlmError


class CodecMismatch(CharlmError):
    """The data was compressed with another model, whose probabilities are needed to decode it."""

    reason = "CODEC_MODEL_MISMATCH"

    def __init__(self, made_with: str, served: str) -> None:
        self.made_with, self.served = made_with, served
        super().__init__(
            f"The data was compressed with checkpoint {made_with}..., but this model is "
            f"{served}...; name the model that compressed it."
        )

    @property
    def metadata(self) -> dict[str, str]:
        return {"made_with": self.made_with, "served": self.served}


class NumericsMismatch(CodecMismatch):
    """The data was compressed with another arithmetic, whose last bits differ."""

    reason = "CODEC_NUMERICS_MISMATCH"

    def __init__(self, made_with: str, served: str) -> None:
        self.made_with, self.served = made_with, served
        CharlmError.__init__(
            self,
            f"The data was compressed with the arithmetic {made_with}, but this server computes by "
            f"{served}; decompress it with a charlm and a device of {made_with}.",
        )


class CodecDamaged(CharlmError):
    """A frame of compressed data is damaged or missing; `offset` is its first byte."""

    reason = "CODEC_CHECKSUM"

    def __init__(self, frame: int, offset: int) -> None:
        self.frame, self.offset = frame, offset
        super().__init__(
            f"The compressed data is damaged: frame {frame}, at byte {offset}, was changed, "
            "removed or cut off. Skip damaged frames to restore the others."
        )

    @property
    def metadata(self) -> dict[str, str]:
        return {"frame": str(self.frame), "offset": str(self.offset)}


class CodecHeaderDamaged(CodecDamaged):
    """The data does not begin with the header of compressed data."""

    reason = "CODEC_HEADER"

    def __init__(self) -> None:
        self.frame, self.offset = 0, 0
        CharlmError.__init__(
            self,
            "The data does not begin with the header that Compress writes: it is not compressed "
            "data, or its first bytes are damaged.",
        )
