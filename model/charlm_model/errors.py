"""What can go wrong with a model, its vocabulary or its checkpoint.

ModelError
  InvalidConfig         a size or name that no model can have
  DeviceUnavailable     a device that this machine, or its torch, lacks
  InvalidUtf8           bytes that are not UTF-8
  UnknownCharacter      a character outside the vocabulary
  InvalidSampling       a sampling parameter out of its range
  InvalidConstraint     a language that no output can be held to
  CheckpointError
    CheckpointNotFound  the path holds no checkpoint
    CheckpointCorrupt   a file is missing, truncated or changed
    UnsupportedFormat   written by a newer charlm
    GoldenMismatch      this machine computes other log-probs than were recorded
  SnapshotError
    SnapshotDamaged     bytes that are no state, or not a whole one
    SnapshotMismatch    a state that another checkpoint or arithmetic made
    SnapshotTooNew      written by another version of charlm
"""


class ModelError(Exception):
    """The base of everything raised here; its text is a complete sentence for a person."""


class InvalidConfig(ModelError):
    """A size or name that no model can have."""


class DeviceUnavailable(ModelError):
    """A device that this machine, or its torch, lacks."""


class InvalidUtf8(ModelError):
    """Bytes that are not UTF-8."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        super().__init__(
            f"The text is not UTF-8: byte {offset} starts no character. "
            "Convert it to UTF-8, or use a model with the byte vocabulary."
        )


class UnknownCharacter(ModelError):
    """A character outside the vocabulary, and where it stands (in characters)."""

    def __init__(self, character: str, offset: int) -> None:
        self.character = character
        self.offset = offset
        super().__init__(
            f"The character {character!r} (U+{ord(character):04X}) at offset {offset} is not in "
            "the model's vocabulary. Remove it, ask for unknown characters to be replaced, or use "
            "a model with the byte vocabulary."
        )


class InvalidSampling(ModelError):
    """A sampling parameter out of its range."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field = field
        self.value = value
        self.allowed = allowed
        super().__init__(f"{field} is {value}, but must be {allowed}.")


class CheckpointError(ModelError):
    """A directory that cannot be loaded as a checkpoint."""


class CheckpointNotFound(CheckpointError):
    """The path holds no checkpoint."""


class CheckpointCorrupt(CheckpointError):
    """A file is missing, truncated or changed."""


class UnsupportedFormat(CheckpointError):
    """Written by a newer charlm."""


class GoldenMismatch(CheckpointError):
    """This machine computes other log-probs than were recorded."""


class InvalidConstraint(ModelError):
    """A language that no output can be held to; `field` is relative to the constraint."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{field} is {value!r}, but it must be {allowed}.")


class SnapshotError(ModelError):
    """Bytes that cannot be gone on from."""


class SnapshotDamaged(SnapshotError):
    """Bytes that are no state, or not a whole one."""

    def __init__(self, why: str) -> None:
        super().__init__(f"This is no whole exported state: {why}. Export the state again.")


class SnapshotMismatch(SnapshotError):
    """A state that another checkpoint or arithmetic made; `what` says which of both."""

    def __init__(self, what: str, made_by: str, here: str) -> None:
        self.what, self.made_by, self.here = what, made_by, here
        super().__init__(
            f"The state was made by another {what} ({made_by[:200]}) than is served here ({here}); "
            "go on with it where it was made, or read the text again."
        )


class SnapshotTooNew(SnapshotError):
    """Written by another version of charlm."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"The exported state has format version {found}, but this charlm reads {known}; "
            "install the charlm that wrote it, or export the state again."
        )
