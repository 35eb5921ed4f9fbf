"""A command asks a busy server again when the server said, and not for longer than it may."""

import asyncio
import signal

import grpc
import pytest
from fake_server import Failure, Script

from charlm_client import Client, QueueFull
from charlm_client.cli.run_call import run_call
from charlm_client.types import Model

BUSY = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "QUEUE_FULL", retry_after_s=0.01)
FULL = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "TOO_MANY_STATES", retry_after_s=600)


async def models(client: Client) -> list[Model]:
    await client.generate("a", model="alphabet")
    return await client.list_models()


async def test_a_call_is_retried_while_the_queue_is_full(
    script: Script, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    script.failures += [BUSY, BUSY]
    [model] = await asyncio.to_thread(run_call, address, 30.0, models)

    assert model.name == "models/alphabet"
    assert capsys.readouterr().err == "charlm: waiting: full\n" * 2


@pytest.mark.parametrize(("failure", "may_retry"), [(FULL, True), (BUSY, False)])
async def test_no_retry_after_the_timeout_or_for_calls_that_read_a_stream(
    script: Script, address: str, failure: Failure, may_retry: bool
) -> None:
    script.failures.append(failure)
    with pytest.raises(QueueFull):
        await asyncio.to_thread(run_call, address, 30.0, models, may_retry=may_retry)

    assert len(script.requests) == 1


def test_signals_wake_a_waiting_loop() -> None:
    async def wakeup_file(_client: Client) -> int:
        file = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(file)
        return file

    assert run_call("127.0.0.1:1", 5.0, wakeup_file) != -1
    assert signal.set_wakeup_fd(-1) == -1
