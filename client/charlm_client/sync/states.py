"""The synchronous face of `states.py`: the same methods, which block."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from charlm_client.api.states import State, States
from charlm_client.types import After

Result = TypeVar("Result")


class SyncStates:
    """`client.states` of a program without an event loop; see States."""

    def __init__(self, states: States, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._states, self._run = states, run

    def create(
        self,
        text: str | After = "",
        *,
        model: str,
        time_to_live_s: float | None = None,
        replace_unknown: bool = False,
    ) -> State:
        return self._ran(
            self._states.create(
                text,
                model=model,
                time_to_live_s=time_to_live_s,
                replace_unknown=replace_unknown,
            )
        )

    def advance(
        self,
        name: str,
        text: str,
        *,
        etag: str = "",
        checkpoint: bool = False,
        replace_unknown: bool = False,
    ) -> tuple[State, float]:
        return self._ran(
            self._states.advance(
                name, text, etag=etag, checkpoint=checkpoint, replace_unknown=replace_unknown
            )
        )

    def fork(self, name: str, *, position: int | None = None) -> State:
        return self._ran(self._states.fork(name, position=position))

    def get(self, name: str) -> State:
        return self._ran(self._states.get(name))

    def every(self, *, model: str = "") -> list[State]:
        return self._ran(self._states.every(model=model))

    def delete(self, name: str) -> None:
        self._ran(self._states.delete(name))

    def export(self, name: str) -> bytes:
        return self._ran(self._states.export(name))

    def bring(self, data: bytes, *, time_to_live_s: float | None = None) -> State:
        return self._ran(self._states.bring(data, time_to_live_s=time_to_live_s))

    def _ran(self, work: Coroutine[Any, Any, Result]) -> Result:
        result: Result = self._run(work)
        return result
