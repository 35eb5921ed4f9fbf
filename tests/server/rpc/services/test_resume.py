"""A broken stream resumes on any server with the same text and the same bits."""

from collections.abc import Iterable
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.v1 import generation_pb2 as gen
from charlm.v1 import sampling_pb2
from charlm_server.engine.generation import Origin
from charlm_server.engine.resume import TOKEN_BYTES, ReceivedDigest, ResumePosition
from charlm_server.errors.resume import ResumeMismatch, ResumeTokenDamaged
from tests.server.wire import Wire, column, data_of, details_of, serving, text_of

FAMILIES = ("ngram", "rnn", "gru", "lstm", "transformer")
KINDS = [*((family, "char") for family in FAMILIES), ("lstm", "byte"), ("gru", "sentencepiece")]
MIXTURES = ("online-char=online:gru-char,lstm-char",)
PATTERN = {"regex": "[a-z ,.]{8}"}
IN_LANGUAGES = [
    ("LOCAL_MASK", PATTERN),
    ("REJECTION", PATTERN),
    ("SMC", PATTERN),
    ("LOCAL_MASK", {"choices": {"texts": ["to be", "to have", "not to be"]}}),
    ("SMC", {"choices": {"texts": ["to be", "to have", "not to be"]}}),
    ("LOCAL_MASK", {"allowed_characters": "abcdefghijklm "}),
]
ORIGIN = Origin.of("a checkpoint", b"a request", 7)


def asked(model: str, **options: object) -> gen.GenerateRequest:
    """Penalties, a stop sequence and bytes that are no characters: all that a stream carries."""
    return gen.GenerateRequest(
        model=f"models/{model}",
        context={"text": "the story"},
        sampling=sampling_pb2.SamplingParams(repetition_penalty=1.3, penalty_window=6, seed=3),
        stopping={"max_new_tokens": 24, "stop_sequences": ["qqq", "aaaa"]},
        returns={"ranks": True, "top_k": 2},
        **options,
    )


async def streamed(
    wire: Wire, request: gen.GenerateRequest, resume: Iterable[gen.ResumePoint] = ()
) -> list[gen.StreamGenerateResponse]:
    return await wire.stream(request, resume=resume, max_chunk_tokens=1)


def chunks_of(responses: list[gen.StreamGenerateResponse], index: int) -> list[gen.OutputChunk]:
    return [c for r in responses for c in r.chunks if c.index == index]


def point_after(chunks: list[gen.OutputChunk]) -> gen.ResumePoint:
    received = [token for chunk in chunks for token in chunk.tokens.token_ids]
    return gen.ResumePoint(resume_token=chunks[-1].resume_token, received={"ids": received})


def without_time(responses: list[gen.StreamGenerateResponse], index: int = 0) -> tuple[object, ...]:
    """Everything that must be the same on every server."""
    names = ("token_ids", "logprobs", "sampling_logprobs", "ranks", "constraint_log_masses")
    columns = [column(responses, name, index) for name in names]
    end = chunks_of(responses, index)[-1].end
    return text_of(responses, index), data_of(responses, index), columns, end.SerializeToString()


async def half_matched(wire: Wire, request: gen.GenerateRequest) -> list[str]:
    """A stop sequence that will begin and not go on, and one that ends the text near its end."""
    free = gen.GenerateRequest()
    free.CopyFrom(request)
    del free.stopping.stop_sequences[:]
    text = text_of(await streamed(wire, free))
    other = next(letter for letter in "qzx" if letter != text[6])
    return [text[4:6] + other, text[-4:-1]]


async def everywhere(
    request: gen.GenerateRequest, *kinds: tuple[str, str], mixtures: Iterable[str] = ()
) -> None:
    """Break the stream off after every chunk, and go on with it on another replica."""
    async with (
        serving(*kinds, mixtures=mixtures) as first,
        serving(*kinds, mixtures=mixtures) as second,
    ):
        if request.stopping.stop_sequences:
            request.stopping.stop_sequences[:] = await half_matched(first, request)
        whole = await streamed(first, request)
        assert len(whole) > 1
        for cut in range(1, len(whole)):
            head = whole[:cut]
            outputs = [chunks_of(head, index) for index in range(request.num_outputs or 1)]
            points = [point_after(chunks) for chunks in outputs if chunks]
            rest = await streamed(second, request, points)
            for index in range(request.num_outputs or 1):
                assert without_time(head + rest, index) == without_time(whole, index)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind))
async def test_a_stream_goes_on_after_every_chunk(kind: tuple[str, str]) -> None:
    await everywhere(asked("-".join(kind)), kind)


@pytest.mark.slow
async def test_a_stream_of_a_mixture_goes_on_after_every_chunk() -> None:
    await everywhere(asked("online-char"), ("gru", "char"), ("lstm", "char"), mixtures=MIXTURES)


@pytest.mark.slow
async def test_every_output_is_resumed_from_its_own_position() -> None:
    await everywhere(asked("gru-char", num_outputs=3), ("gru", "char"))


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "language"), IN_LANGUAGES)
async def test_a_stream_in_a_language_goes_on(mode: str, language: dict[str, Any]) -> None:
    request = asked(
        "gru-char",
        num_outputs=2,
        constraint={**language, "mode": f"CONSTRAINT_MODE_{mode}"},
    )
    if mode != "LOCAL_MASK" or "choices" in language:
        del request.stopping.stop_sequences[:]
        request.constraint.max_attempts = 10_000

    await everywhere(request, ("gru", "char"))


async def test_a_stream_goes_on_with_the_seed_that_the_server_chose() -> None:
    request = asked("gru-char")
    request.sampling.ClearField("seed")
    request.stopping.Clear()  # whatever the seed, it does not end early
    request.stopping.max_new_tokens = 12
    request.stopping.ignore_end_of_text = True
    async with serving(("gru", "char")) as wire:
        whole = await streamed(wire, request)

        rest = await streamed(wire, request, [point_after(chunks_of(whole[:5], 0))])

    assert without_time(whole[:5] + rest) == without_time(whole)


async def refusal(request: gen.GenerateRequest, point: gen.ResumePoint) -> tuple[object, str, str]:
    async with serving(("gru", "char")) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await streamed(wire, request, [point])
    info = details_of(caught.value)["ErrorInfo"]
    return caught.value.code(), info.reason, caught.value.details() or ""


@pytest.fixture
async def point() -> gen.ResumePoint:
    async with serving(("gru", "char")) as wire:
        whole = await streamed(wire, asked("gru-char"))
    return point_after(chunks_of(whole[:5], 0))


async def test_another_request_is_refused(point: gen.ResumePoint) -> None:
    request = asked("gru-char")
    request.sampling.temperature = 0.5

    code, reason, _ = await refusal(request, point)

    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RESUME_REQUEST_MISMATCH")


async def test_other_ids_are_refused(point: gen.ResumePoint) -> None:
    del point.received.ids[-1]

    code, reason, sentence = await refusal(asked("gru-char"), point)

    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RESUME_RECEIVED_MISMATCH")
    assert f"{len(point.received.ids)} of {len(point.received.ids) + 1} tokens" in sentence


async def test_a_damaged_token_is_refused(point: gen.ResumePoint) -> None:
    point.resume_token = point.resume_token[:-1]

    code, reason, sentence = await refusal(asked("gru-char"), point)

    assert (code, reason) == (grpc.StatusCode.DATA_LOSS, "RESUME_TOKEN_DAMAGED")
    assert f"{TOKEN_BYTES - 1} bytes of {TOKEN_BYTES}" in sentence


async def test_nothing_goes_on_where_all_has_ended() -> None:
    async with serving(("gru", "char")) as wire:
        whole = await streamed(wire, asked("gru-char"))
        with pytest.raises(grpc.aio.AioRpcError, match="ended"):
            await streamed(wire, asked("gru-char"), [point_after(chunks_of(whole, 0))])


async def test_chunks_carry_no_tokens_if_none_are_wanted() -> None:
    async with serving(("gru", "char")) as wire:
        responses = await wire.stream(asked("gru-char"), resume_tokens=False)

    assert not any(chunk.resume_token for chunk in chunks_of(responses, 0))


def token() -> bytes:
    position = ResumePosition(
        origin=ORIGIN,
        index=2,
        num_tokens=2,
        num_bytes=2,
        num_characters=2,
        has_ended=False,
        received=ReceivedDigest([5, 6]).value,
    )
    return position.to_token()


def test_a_token_says_where_it_is() -> None:
    place = ResumePosition.from_token(token())

    assert (place.index, place.num_tokens, place.num_bytes, place.num_characters) == (2, 2, 2, 2)
    assert place.resumption(ORIGIN, [5, 6]).received_ids == [5, 6]


@given(st.integers(0, TOKEN_BYTES - 1), st.integers(1, 255))
def test_no_changed_byte_goes_unseen(at: int, change: int) -> None:
    changed = bytearray(token())
    changed[at] ^= change

    with pytest.raises(ResumeTokenDamaged):
        ResumePosition.from_token(bytes(changed))


@given(st.binary(max_size=2 * TOKEN_BYTES))
def test_other_bytes_are_no_token(data: bytes) -> None:
    with pytest.raises(ResumeTokenDamaged):
        ResumePosition.from_token(data)


def test_a_token_of_another_model_is_told_from_one_of_another_request() -> None:
    place = ResumePosition.from_token(token())

    with pytest.raises(ResumeMismatch, match="checkpoint"):
        place.resumption(Origin.of("another", b"a request", 7), [5, 6])
    with pytest.raises(ResumeMismatch, match="request"):
        place.resumption(Origin.of("a checkpoint", b"another", 7), [5, 6])
