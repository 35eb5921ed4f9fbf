"""A stream whose server dies goes on as if nothing had happened."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from fake_server import ALPHABET, LOGPROB, Failure, Script
from hypothesis import given
from hypothesis import strategies as st

from charlm_client import (
    Client,
    InvalidRequest,
    Resuming,
    ServerFault,
    StateMismatch,
    SyncClient,
    Unavailable,
)
from charlm_client.types import FinishReason
from charlm_client.wire.channel import service_config, target_of

SOON = Resuming(max_attempts=3, first_wait_s=0.001, longest_wait_s=0.002)


@pytest.fixture
async def client(address: str) -> AsyncIterator[Client]:
    async with Client(address, timeout_s=5, resuming=SOON) as client:
        yield client


async def streamed(client: Client, num_outputs: int = 1) -> list[str]:
    """The outputs' texts; positions and log-probs must be those of one unbroken stream."""
    texts = [""] * num_outputs
    async with client.stream_generate("x", model="alphabet", num_outputs=num_outputs) as stream:
        async for chunk in stream:
            assert chunk.first_position == len(texts[chunk.index])
            assert chunk.logprobs == pytest.approx((LOGPROB,))
            texts[chunk.index] += chunk.text
    return texts


@pytest.mark.parametrize("num_received", [1, 2, 4])
async def test_a_broken_stream_is_resumed_where_it_broke(
    client: Client, script: Script, num_received: int
) -> None:
    script.breaks.append(num_received)

    assert await streamed(client) == [ALPHABET[:5]]
    assert len(script.requests) == 2


async def test_a_proxy_error_for_a_failed_server_is_resumed(client: Client, script: Script) -> None:
    script.breaks.append(2)
    script.is_behind_proxy = True

    assert await streamed(client) == [ALPHABET[:5]]


async def test_an_internal_error_of_the_server_is_not_resumed(
    client: Client, script: Script
) -> None:
    script.breaks.append(2)
    stream = client.stream_generate("x", model="alphabet")
    chunks = aiter(stream)
    await anext(chunks)
    script.failures.append(Failure(grpc.StatusCode.INTERNAL, reason="ENGINE_FAILED"))

    with pytest.raises(ServerFault):
        _ = [chunk async for chunk in chunks]


async def test_every_output_is_resumed_from_its_own_position(
    client: Client, script: Script
) -> None:
    script.breaks.extend([7, 3])

    assert await streamed(client, num_outputs=3) == [ALPHABET[:5]] * 3


async def test_an_output_cut_short_by_a_stopping_server_is_not_yielded(
    client: Client, script: Script
) -> None:
    script.breaks.append(2)
    script.drains = True

    assert await streamed(client) == [ALPHABET[:5]]


async def test_without_resuming_a_stopping_server_ends_the_stream(
    address: str, script: Script
) -> None:
    script.breaks.append(2)
    script.drains = True

    async with Client(address, resuming=Resuming(max_attempts=0)) as client:
        chunks = [chunk async for chunk in client.stream_generate("x", model="alphabet")]

    assert chunks[-1].end is not None
    assert chunks[-1].end.finish_reason is FinishReason.DRAINED


async def test_attempts_are_bounded(client: Client, script: Script) -> None:
    script.breaks.extend([1, 0, 0, 0, 0, 0])

    with pytest.raises(Unavailable):
        await streamed(client)

    assert len(script.requests) == 1 + SOON.max_attempts


async def test_a_new_character_resets_the_number_of_attempts(
    client: Client, script: Script
) -> None:
    script.breaks.extend([1, 1, 1, 1])

    assert await streamed(client) == [ALPHABET[:5]]


async def test_a_stream_that_never_began_fails_at_once(client: Client, script: Script) -> None:
    script.failures.append(Failure(grpc.StatusCode.UNAVAILABLE))

    with pytest.raises(Unavailable):
        await streamed(client)


async def test_a_replica_with_another_model_raises_state_mismatch(
    client: Client, script: Script
) -> None:
    script.breaks.append(2)
    code = grpc.StatusCode.FAILED_PRECONDITION
    refused = Failure(code, reason="RESUME_MODEL_MISMATCH")
    stream = client.stream_generate("x", model="alphabet")
    chunks = aiter(stream)
    await anext(chunks)
    script.failures.append(refused)

    with pytest.raises(StateMismatch):
        _ = [chunk async for chunk in chunks]


async def test_without_resuming_no_resume_tokens_are_requested(
    address: str, script: Script
) -> None:
    async with Client(address, resuming=Resuming(max_attempts=0)) as client:
        await streamed(client)

    assert script.requests[-1].resume_tokens is False  # type: ignore[attr-defined]


async def test_the_synchronous_client_resumes_too(address: str, script: Script) -> None:
    script.breaks.append(2)

    def text() -> str:
        with SyncClient(address, resuming=SOON) as client:
            return "".join(chunk.text for chunk in client.stream_generate("x", model="alphabet"))

    assert await asyncio.to_thread(text) == ALPHABET[:5]


@given(st.integers(0, 60))
def test_waits_grow_and_are_bounded(attempt: int) -> None:
    resuming = Resuming(first_wait_s=0.5, longest_wait_s=4.0)

    assert min(0.25 * 2**attempt, 2.0) <= resuming.wait_s(attempt) <= min(0.5 * 2**attempt, 4.0)


def test_waits_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="attempts"):
        Resuming(first_wait_s=2.0, longest_wait_s=1.0)


def test_several_addresses_are_one_target() -> None:
    assert target_of("localhost:1, 10.0.0.2:22") == "ipv4:127.0.0.1:1,10.0.0.2:22"
    assert target_of("replicas.example:50051") == "replicas.example:50051"
    with pytest.raises(InvalidRequest, match="of numbers"):
        target_of("10.0.0.1:1,replica:2")


@pytest.mark.parametrize(
    ("address", "has_several"),
    [("10.0.0.1:1", False), ("10.0.0.1:1,10.0.0.2:1", True), ("dns:///charlm:1", True)],
)
def test_several_servers_are_health_checked(address: str, has_several: bool) -> None:
    config = service_config(address)

    assert ("healthCheckConfig" in config) == has_several
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
