"""Errors of models: their names, checkpoints and number.

CharlmError
  ModelNotFound       no model of that name is loaded
  CheckpointUnknown   the model directory has no such checkpoint
  CheckpointUnusable  the checkpoint is damaged or of another version
  ModelInUse          an alias points to the model that is to be unloaded
  TooManyModels       the limit of models and aliases is reached
"""

from charlm_server.errors.base import CharlmError, shown


class ModelNotFound(CharlmError):
    """No model of that name is loaded."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, name: str, loaded: list[str]) -> None:
        self.name, self.loaded = name, loaded
        super().__init__(f"No model {shown(name)} is loaded; loaded: {', '.join(loaded)}.")

    @property
    def metadata(self) -> dict[str, str]:
        return {"model": self.name}


class CheckpointUnknown(CharlmError):
    """The model directory has no checkpoint of that name."""

    reason = "CHECKPOINT_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The server's model directory has no checkpoint {shown(name)}; give the name of one "
            "in it, without a path."
        )


class CheckpointUnusable(CharlmError):
    """The checkpoint exists, but cannot be served."""

    reason = "CHECKPOINT_UNUSABLE"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"The checkpoint {name!r} cannot be served: {why}")


class ModelInUse(CharlmError):
    """An alias points to the model that is to be unloaded."""

    reason = "MODEL_HAS_ALIAS"

    def __init__(self, name: str, alias: str) -> None:
        self.alias = alias
        super().__init__(f"Alias {alias} points to {name}; repoint it first.")

    @property
    def metadata(self) -> dict[str, str]:
        return {"alias": self.alias}


class TooManyModels(CharlmError):
    """The limit of models and aliases is reached."""

    reason = "TOO_MANY_MODELS"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The limit of {limit} models and aliases is reached; unload one first.")
