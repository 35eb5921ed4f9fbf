"""Every status and reason comes back under its own name."""

import grpc
import pytest
from fake_server import Failure, Script

from charlm_client import (
    CharlmError,
    Client,
    DataLoss,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    ModelNotFound,
    NotOffered,
    QueueFull,
    ServerFault,
    StateMismatch,
    TooLarge,
    Unavailable,
    UnknownCharacter,
)

CODES = grpc.StatusCode


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Failure(CODES.INVALID_ARGUMENT, reason="INVALID_FIELD"), InvalidRequest),
        (Failure(CODES.INVALID_ARGUMENT, reason="UNKNOWN_CHARACTER"), UnknownCharacter),
        (Failure(CODES.INVALID_ARGUMENT), InvalidRequest),
        (Failure(CODES.OUT_OF_RANGE), InvalidRequest),
        (Failure(CODES.NOT_FOUND, reason="MODEL_NOT_FOUND"), ModelNotFound),
        (Failure(CODES.FAILED_PRECONDITION, reason="STATE_MODEL_MISMATCH"), StateMismatch),
        (Failure(CODES.RESOURCE_EXHAUSTED, reason="QUEUE_FULL"), QueueFull),
        (Failure(CODES.RESOURCE_EXHAUSTED, reason="CALLER_SHARE"), QueueFull),
        (Failure(CODES.RESOURCE_EXHAUSTED, reason="TOO_MANY_MODELS"), InvalidRequest),
        (Failure(CODES.RESOURCE_EXHAUSTED, reason="ANSWER_TOO_LARGE"), TooLarge),
        (Failure(CODES.UNIMPLEMENTED, reason="NOT_OFFERED"), NotOffered),
        (Failure(CODES.ABORTED, reason="ETAG_MISMATCH"), StateMismatch),
        (Failure(CODES.DEADLINE_EXCEEDED, reason="DEADLINE_TOO_SHORT"), DeadlineExceeded),
        (Failure(CODES.UNAVAILABLE, reason="DRAINING"), Draining),
        (Failure(CODES.UNAVAILABLE), Unavailable),
        (Failure(CODES.CANCELLED), Unavailable),
        (Failure(CODES.UNIMPLEMENTED), NotOffered),
        (Failure(CODES.DATA_LOSS), DataLoss),
        (Failure(CODES.INTERNAL, reason="ENGINE_FAILED"), ServerFault),
        (Failure(CODES.UNKNOWN), ServerFault),
    ],
    ids=lambda value: getattr(value, "reason", None) or str(getattr(value, "__name__", "plain")),
)
async def test_every_status_and_reason_raises_its_own_error(
    client: Client, script: Script, failure: Failure, expected: type[CharlmError]
) -> None:
    script.failures.append(failure)

    with pytest.raises(CharlmError) as caught:
        await client.generate("x", model="a")

    assert type(caught.value) is expected
    assert caught.value.reason == failure.reason
    assert "scripted" in str(caught.value)
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)


async def test_the_error_has_the_field(client: Client, script: Script) -> None:
    script.failures.append(Failure(CODES.INVALID_ARGUMENT, field="sampling.top_p"))

    with pytest.raises(InvalidRequest) as caught:
        await client.generate("x", model="a")

    assert caught.value.field == "sampling.top_p"


async def test_the_error_has_the_retry_delay(client: Client, script: Script) -> None:
    script.failures.append(Failure(CODES.RESOURCE_EXHAUSTED, retry_after_s=2.5))

    with pytest.raises(QueueFull) as caught:
        await client.generate("x", model="a")

    assert caught.value.retry_after_s == 2.5


async def test_a_message_over_the_bound_is_not_a_full_queue(client: Client) -> None:
    """The fake takes gRPC's own 4 MiB and no more."""
    with pytest.raises(TooLarge, match="less in one call"):
        await client.generate("x" * 5 * 2**20, model="a")


async def test_a_stream_raises_the_same_errors(client: Client, script: Script) -> None:
    script.failures.append(Failure(CODES.NOT_FOUND, reason="MODEL_NOT_FOUND"))

    with pytest.raises(ModelNotFound):
        async with client.stream_generate("x", model="a") as stream:
            _ = [chunk async for chunk in stream]


async def test_the_error_of_one_address_of_localhost_says_that_there_is_another() -> None:
    async with Client("localhost:1", timeout_s=5) as client:
        with pytest.raises(Unavailable, match=r"answers at localhost:1\..*127"):
            await client.generate("x", model="a")
