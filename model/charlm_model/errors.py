"""What can go wrong with a model, its vocabulary or its checkpoint.

ModelError
  InvalidConfig         a size or name that no model can have
  DeviceUnavailable     a device that this machine or its torch lacks
  InvalidUtf8           bytes that are not UTF-8
  UnknownCharacter      a character outside the vocabulary
  InvalidSampling       a sampling parameter out of its range
  InvalidConstraint     a constraint that no output can match, or of an unsupported form
  CheckpointError
    CheckpointNotFound  the path holds no checkpoint
    CheckpointCorrupt   a file is missing, truncated or changed
    UnsupportedFormat   written by a newer charlm
    GoldenMismatch      this machine computes other log-probs than the recorded ones
  SnapshotError
    SnapshotDamaged     bytes that are not an intact exported state
    SnapshotMismatch    a state of another checkpoint or arithmetic
    SnapshotTooNew      written by another version of charlm
"""


class ModelError(Exception):
    """The base of all errors of this package; its text is a complete sentence for users."""


class InvalidConfig(ModelError):
    """A size or name that no model can have."""


class DeviceUnavailable(ModelError):
    """A device that this machine or its torch lacks."""


class InvalidUtf8(ModelError):
    """Bytes that are not UTF-8."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        super().__init__(
            f"The text is not UTF-8: byte {offset} does not start a character. "
            "Convert it to UTF-8, or use a model with the byte vocabulary."
        )


class UnknownCharacter(ModelError):
    """A character outside the vocabulary, and its offset (in characters)."""

    def __init__(self, character: str, offset: int) -> None:
        self.character = character
        self.offset = offset
        super().__init__(
            f"The character {character!r} (U+{ord(character):04X}) at offset {offset} is not in "
            "the model's vocabulary. Remove it, have unknown characters replaced, or use "
            "a model with the byte vocabulary."
        )


class InvalidSampling(ModelError):
    """A sampling parameter out of its range."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field = field
        self.value = value
        self.allowed = allowed
        super().__init__(f"{field} is {value}; it must be {allowed}.")


class CheckpointError(ModelError):
    """A directory that cannot be loaded as a checkpoint."""


class CheckpointNotFound(CheckpointError):
    """The path holds no checkpoint."""


class CheckpointCorrupt(CheckpointError):
    """A file is missing, truncated or changed."""


class UnsupportedFormat(CheckpointError):
    """Written by a newer charlm."""


class GoldenMismatch(CheckpointError):
    """This machine computes other log-probs than the recorded ones."""


class InvalidConstraint(ModelError):
    """A constraint that is unsupported or cannot be met; `field` is relative to it."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{field} is {value!r}; it must be {allowed}.")


class SnapshotError(ModelError):
    """An exported state that cannot be continued."""


class SnapshotDamaged(SnapshotError):
    """Bytes that are not an intact exported state."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The exported state is damaged: {why}. Export the state again.")


class SnapshotMismatch(SnapshotError):
    """A state of another checkpoint or arithmetic; `what` says which of the two."""

    def __init__(self, what: str, made_by: str, here: str) -> None:
        self.what, self.made_by, self.here = what, made_by, here
        super().__init__(
            f"The state was made by another {what} ({made_by[:200]}) than the one served here "
            f"({here}). Continue it where it was made, or send the text again."
        )


class SnapshotTooNew(SnapshotError):
    """Written by another version of charlm."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"The exported state has format version {found}, but this charlm reads {known}. "
            "Install the charlm that wrote it, or export the state again."
        )
