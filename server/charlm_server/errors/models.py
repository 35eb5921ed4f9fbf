"""Errors about models: their names, checkpoints and number."""

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
            f"The server's model directory holds no checkpoint {shown(name)}; give the name of "
            "one that is there, without a path."
        )


class CheckpointUnusable(CharlmError):
    """The checkpoint is there, but cannot be served."""

    reason = "CHECKPOINT_UNUSABLE"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"The checkpoint {name!r} cannot be served: {why}")


class ModelInUse(CharlmError):
    """An alias stands for the model that is to be unloaded."""

    reason = "MODEL_HAS_ALIAS"

    def __init__(self, name: str, alias: str) -> None:
        self.alias = alias
        super().__init__(f"{alias} stands for {name}; let it stand for another model first.")

    @property
    def metadata(self) -> dict[str, str]:
        return {"alias": self.alias}


class TooManyModels(CharlmError):
    """As many models and aliases are served as may be."""

    reason = "TOO_MANY_MODELS"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} models and aliases are served, and no more may be; unload some.")
