"""The synchronous face of `admin.py`: the same methods, which block."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from charlm_client.api.admin import Admin, ModelLoad
from charlm_client.types import Model

Result = TypeVar("Result")


class SyncAdmin:
    """`client.admin` of a program without an event loop; see Admin."""

    def __init__(self, admin: Admin, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._admin, self._run = admin, run

    def load_model(self, checkpoint: str, *, model: str = "") -> Model:
        return self._ran(self._admin.load_model(checkpoint, model=model))

    def set_alias(self, alias: str, *, model: str) -> str:
        return self._ran(self._admin.set_alias(alias, model=model))

    def unload_model(self, model: str) -> None:
        self._ran(self._admin.unload_model(model))

    def loads(self, *, model: str = "") -> list[ModelLoad]:
        return self._ran(self._admin.loads(model=model))

    def _ran(self, work: Coroutine[Any, Any, Result]) -> Result:
        result: Result = self._run(work)
        return result
