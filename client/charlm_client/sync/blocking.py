"""Synchronous methods made from asynchronous ones, with their parameters, types and docstrings."""

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
Async = TypeVar("Async")
Item = TypeVar("Item")
Result = TypeVar("Result")
Stream = TypeVar("Stream")
SyncStream = TypeVar("SyncStream")


class RunCoroutine(Protocol):
    """Runs a coroutine on the event loop of another thread and returns its result."""

    def __call__(self, work: Coroutine[Any, Any, Result], /) -> Result: ...


class Blocking(Generic[Async]):
    """A synchronous class: the asynchronous object behind it, and what runs its coroutines."""

    def __init__(self, asynchronous: Async, run: RunCoroutine) -> None:
        self._asynchronous, self._run = asynchronous, run

    def _items(self, items: AsyncIterator[Item]) -> Iterator[Item]:
        while (item := self._run(_next(items))) is not None:
            yield item


def blocking(
    method: Callable[Concatenate[Async, P], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[Blocking[Async], P], Result]:
    """The method for programs without an event loop: it returns what the coroutine returns."""

    @wraps(method)
    def call(self: Blocking[Async], /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return self._run(method(self._asynchronous, *args, **kwargs))

    return call


def streaming(
    method: Callable[Concatenate[Async, P], Stream],
    kind: Callable[[Stream, RunCoroutine], SyncStream],
) -> Callable[Concatenate[Blocking[Async], P], SyncStream]:
    """The method that starts a stream; it returns the synchronous `kind` of that stream."""

    @wraps(method)
    def call(self: Blocking[Async], /, *args: P.args, **kwargs: P.kwargs) -> SyncStream:
        async def start() -> Stream:  # on the loop's thread: no other can make a channel
            return method(self._asynchronous, *args, **kwargs)

        return kind(self._run(start()), self._run)

    signature = inspect.signature(method).replace(return_annotation=kind)
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


async def _next(items: AsyncIterator[Item]) -> Item | None:
    return await anext(items, None)
