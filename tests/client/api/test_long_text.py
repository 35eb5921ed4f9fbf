"""A text goes up as it is read and its scores come down as they are made."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from fake_server import LOGPROB, Failure, Script
from rich.progress import Progress

from charlm.v1 import context_pb2
from charlm_client import Client, InvalidRequest, ModelNotFound, SyncClient, UnknownCharacter
from charlm_client.cli import input_file
from charlm_client.cli.score_file import FileText


async def test_pieces_arrive_in_order_and_scores_come_back(client: Client, script: Script) -> None:
    async def text() -> AsyncIterator[bytes]:
        yield b"ab"
        yield "é".encode()[:1]
        yield "é".encode()[1:] + b"c"

    stream = client.stream_score(
        text(), model="m", context="x", returns="details", replace_unknown=True
    )
    parts = [part async for part in stream]

    start = script.requests[0].start
    assert (start.model, start.context.text) == ("models/m", "x")
    assert start.returns.logprobs
    assert (start.returns.ranks, start.returns.entropies) == (True, True)
    assert start.unknown_characters == context_pb2.UNKNOWN_CHARACTER_POLICY_REPLACE
    assert b"".join(request.data for request in script.requests) == "abéc".encode()
    assert [part.first_position for part in parts] == [0, 2, 3]
    assert parts[0].logprobs == pytest.approx((LOGPROB, LOGPROB))
    assert parts[2].character_offsets == (3, 4)
    assert stream.total is not None
    assert (stream.total.num_characters, stream.model_digest) == (4, "d1")


async def test_read_total_returns_the_total(client: Client, script: Script) -> None:
    stream = client.stream_score([b"abc", b"d"], model="m", returns="total")

    assert (await stream.read_total()).num_tokens == 4
    assert not script.requests[0].start.returns.logprobs


async def test_large_pieces_are_cut_to_fit_a_message(client: Client, script: Script) -> None:
    await client.stream_score(b"x" * 2_500_000, model="m", returns="total").read_total()

    assert [len(request.data) for request in script.requests] == [0, 1 << 20, 1 << 20, 402_848]


def failing() -> Iterator[bytes]:
    yield b"ab"
    raise OSError("the disk is gone")


async def test_an_error_of_the_pieces_is_raised_unchanged(client: Client) -> None:
    for read in (
        client.stream_score(failing(), model="m").read_total,
        client.compress(failing(), model="m").read,
        client.decompress(failing(), model="m").read,
    ):
        with pytest.raises(OSError, match="the disk is gone"):
            await read()


def test_an_error_of_the_pieces_is_raised_by_the_synchronous_client_too(address: str) -> None:
    with SyncClient(address) as client, pytest.raises(OSError, match="the disk is gone"):
        list(client.compress(failing(), model="m"))


async def test_an_unknown_word_for_returns_is_refused(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="one of total, logprobs, details"):
        client.stream_score(b"a", model="m", returns="bogus")  # type: ignore[arg-type]


async def test_a_value_that_no_message_can_hold_is_named(client: Client) -> None:
    with pytest.raises(UnknownCharacter, match=r"context\.text"):
        await client.stream_score(b"a", model="m", context="\udcff").read_total()


async def test_a_refused_stream_raises_the_error_of_its_status(
    client: Client, script: Script
) -> None:
    script.failures.append(Failure(grpc.StatusCode.NOT_FOUND))

    with pytest.raises(ModelNotFound):
        await client.stream_score([b"a"], model="m").read_total()


async def test_cancelling_the_reader_cancels_the_call(client: Client) -> None:
    is_reading = asyncio.Event()
    never = asyncio.Event()

    async def text() -> AsyncIterator[bytes]:
        is_reading.set()
        yield b"a"
        await never.wait()

    reading = asyncio.create_task(client.stream_score(text(), model="m").read_total())
    await is_reading.wait()
    reading.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.mark.parametrize("size", [1, 2, 3, 64])
@pytest.mark.parametrize(
    "data", [b"", b"\r", b"\xef\xbb\xbf", b"a\r\n", b"a\r\n\r\r\nb\r", b"\r\n"]
)
def test_a_file_is_read_as_training_reads_it(
    data: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_file, "PIECE_BYTES", size)

    read = b"".join(input_file.text_pieces(io.BytesIO(data)))

    assert read == data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")


@pytest.mark.parametrize("keeps_text", [True, False])
def test_only_a_text_that_will_be_shown_is_kept(tmp_path: Path, keeps_text: bool) -> None:
    path = tmp_path / "text.txt"
    path.write_text("한국어" * 50_000)

    with input_file.opened(path) as file, Progress(disable=True) as progress:
        reading = FileText(file, path, progress, keeps_text=keeps_text)
        data = b"".join(reading.pieces())

    assert data == path.read_bytes()
    assert reading.take(2) == ("한국" if keeps_text else "")
    assert len(reading.take_rest()) == (149_998 if keeps_text else 0)


@pytest.mark.slow
async def test_a_late_write_does_not_replace_the_error_of_the_server(
    address: str, script: Script
) -> None:
    """Without `FirstStatus` some three of a hundred are told to be faults of the server's."""
    for _ in range(200):
        script.failures.append(Failure(grpc.StatusCode.NOT_FOUND))
        async with Client(address, timeout_s=5) as client:
            with pytest.raises(ModelNotFound):
                await client.stream_score([b"a"], model="m").read_total()
        script.failures.clear()
