"""Helpers of the servicers: deadlines, large requests, response size, concurrent jobs."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ParamSpec, TypeVar

from google.protobuf.message import Message

from charlm_server.engine.job import FOREVER
from charlm_server.errors.base import AnswerTooLarge
from charlm_server.models.registry import LoadedModel

Params = ParamSpec("Params")
Result = TypeVar("Result")
MessageT = TypeVar("MessageT", bound=Message)

LARGE_REQUEST_BYTES = 1 << 16
# A call ends this long before its deadline, so that its last message still arrives in time: longer
# for long deadlines, whose results take longer to convert, and never most of a short one.
LEAST_MARGIN_S, MOST_MARGIN_S = 0.05, 1.0
MARGIN_SHARE, MOST_MARGIN_SHARE = 0.02, 0.2


def deadline_of(context: Any, model: LoadedModel) -> float:
    """When the call must end, on the engine's clock; infinity if it has no deadline."""
    remaining_s: float | None = context.time_remaining()
    if remaining_s is None:
        return FOREVER
    margin_s = min(max(LEAST_MARGIN_S, MARGIN_SHARE * remaining_s), MOST_MARGIN_S)
    margin_s = min(margin_s, MOST_MARGIN_SHARE * remaining_s)
    return model.scheduler.now() + remaining_s - margin_s


async def convert_off_loop(
    request: Message,
    convert: Callable[Params, Result],
    *args: Params.args,
    **kwargs: Params.kwargs,
) -> Result:
    """The conversion's result; a large request is converted in a thread, so that the event loop
    keeps serving other calls."""
    if request.ByteSize() < LARGE_REQUEST_BYTES:
        return convert(*args, **kwargs)
    return await asyncio.to_thread(convert, *args, **kwargs)


def checked_size(response: MessageT, limit: int, advice: str) -> MessageT:
    """The response. Raises AnswerTooLarge if it exceeds `limit` bytes."""
    if response.ByteSize() > limit:
        raise AnswerTooLarge(limit, advice)
    return response


async def gather_all(works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results of the coroutines, run concurrently; the first error cancels the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
