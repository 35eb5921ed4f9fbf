"""The asynchronous client against a fake server on a real socket."""

import asyncio
import socket

import grpc
import pytest
from fake_server import ALPHABET, LOGPROB, VOCABULARY, Failure, Script, serving

import charlm_client
from charlm_client import (
    Client,
    DeadlineExceeded,
    Details,
    FinishReason,
    InvalidRequest,
    ModelNotFound,
    Sampling,
    Stopping,
    Unavailable,
)
from charlm_client.errors import CharlmError

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def test_generate_returns_typed_outputs(client: Client) -> None:
    generation = await client.generate(
        "x",
        model="alphabet",
        sampling=Sampling(seed=3),
        stopping=Stopping(max_new_tokens=4),
        num_outputs=2,
    )

    assert [output.text for output in generation.outputs] == ["abcd", "abcd"]
    assert generation.outputs[1].index == 1
    assert generation.outputs[0].token_ids == (1, 2, 3, 4)
    assert generation.outputs[0].end.finish_reason is FinishReason.LENGTH
    assert generation.seed == 3
    assert generation.model == "models/alphabet"


async def test_every_field_reaches_the_server(client: Client, script: Script) -> None:
    sampling = Sampling(
        temperature=0.0,
        top_k=0,
        top_p=0.5,
        min_p=0.25,
        typical_p=0.75,
        repetition_penalty=1.5,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        penalty_window=0,
        seed=0,
        logit_bias={3: -1.0},
    )
    stopping = Stopping(
        max_new_tokens=2,
        stop_sequences=("\n",),
        include_stop_sequence=False,
        ignore_end_of_text=True,
        max_time_s=1.5,
    )

    await client.generate("x", model="a", sampling=sampling, stopping=stopping)

    sent = script.requests[0]
    for name in ("temperature", "top_k", "top_p", "min_p", "typical_p", "penalty_window", "seed"):
        assert sent.sampling.HasField(name)
        assert getattr(sent.sampling, name) == getattr(sampling, name)
    assert sent.sampling.repetition_penalty == 1.5
    assert [(bias.token_id, bias.bias) for bias in sent.sampling.biases] == [(3, -1.0)]
    assert list(sent.stopping.stop_sequences) == ["\n"]
    assert sent.stopping.max_time.ToMilliseconds() == 1500
    assert sent.stopping.HasField("include_stop_sequence")


async def test_parameters_that_are_not_given_stay_unset(client: Client, script: Script) -> None:
    await client.generate("x", model="a")

    sampling = script.requests[0].sampling
    assert not sampling.ListFields()


async def test_chunks_make_the_text(client: Client) -> None:
    async with client.stream_generate(
        "x", model="alphabet", stopping=Stopping(max_new_tokens=30)
    ) as stream:
        chunks = [chunk async for chunk in stream]

    assert "".join(chunk.text for chunk in chunks) == (ALPHABET * 2)[:30]
    assert b"".join(chunk.data for chunk in chunks).decode() == (ALPHABET * 2)[:30]
    assert [chunk.first_position for chunk in chunks] == list(range(30))
    assert [chunk.end is not None for chunk in chunks] == [False] * 29 + [True]
    assert stream.header is not None
    assert stream.header.seed == 7


async def test_leaving_a_stream_cancels_the_call(client: Client, script: Script) -> None:
    script.hangs = True  # so that only a cancellation ends it

    async with client.stream_generate("x", model="alphabet") as stream:
        async for _ in stream:
            break

    await asyncio.wait_for(script.stream_ended.wait(), 5)


async def test_a_cancelled_stream_ends_its_iteration(client: Client, script: Script) -> None:
    script.hangs = True
    stream = client.stream_generate("x", model="alphabet")

    texts = []
    async for chunk in stream:
        texts.append(chunk.text)
        stream.cancel()

    assert texts == ["a"]


async def test_a_cancelled_reader_is_cancelled(client: Client, script: Script) -> None:
    """The cancellation of a task is not mistaken for the end of its stream."""
    script.hangs = True

    async def read() -> None:
        async with client.stream_generate("x", model="alphabet") as stream:
            async for _ in stream:
                arrived.set()

    arrived = asyncio.Event()
    reader = asyncio.create_task(read())
    await asyncio.wait_for(arrived.wait(), 5)
    reader.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reader
    await asyncio.wait_for(script.stream_ended.wait(), 5)


async def test_score(client: Client) -> None:
    first, second = await client.score(["ab", "abc"], model="alphabet", details=True)

    assert first.total_logprob == pytest.approx(2 * LOGPROB)
    assert second.num_tokens == 3
    assert second.ranks == (1, 1, 1)
    assert second.logprobs == pytest.approx((LOGPROB,) * 3)


async def test_a_score_has_the_most_probable_tokens_of_each_position(client: Client) -> None:
    (score,) = await client.score(
        ["ab"], model="alphabet", details=Details(top_k=3, distributions=True)
    )
    (plain,) = await client.score(["ab"], model="alphabet")

    assert [[token.text for token in each] for each in score.top] == [["", "a", "b"]] * 2
    assert [len(row) for row in score.distributions] == [len(VOCABULARY)] * 2
    assert (plain.top, plain.distributions) == ((), ())
    with pytest.raises(InvalidRequest, match="top_k"):
        await client.score(["ab"], model="alphabet", details=Details(top_k=-1))


async def test_next_distribution_knows_the_tokens_texts(client: Client, script: Script) -> None:
    distribution = await client.next_distribution("x", model="alphabet", top_k=3)
    await client.next_distribution("y", model="alphabet", top_k=3)

    assert len(distribution.logprobs) == len(VOCABULARY)
    assert [token.text for token in distribution.top] == ["", "a", "b"]
    assert [token.data for token in distribution.top] == [b"", b"a", b"b"]
    kinds = [type(request).__name__ for request in script.requests]
    assert kinds.count("GetVocabularyRequest") == 1  # asked once for each checkpoint


async def test_encode_and_decode(client: Client) -> None:
    (encoding,) = await client.encode(["abc"], model="alphabet")

    assert encoding.token_ids == (1, 2, 3)
    assert await client.decode([encoding.token_ids], model="alphabet") == ["abc"]


async def test_all_pages_of_models_are_read(client: Client, script: Script) -> None:
    script.model_names = ["models/a", "models/b", "models/c"]

    assert [model.name for model in await client.list_models()] == script.model_names
    with pytest.raises(InvalidRequest, match="models/a, models/b, models/c"):
        await client.only_model()


async def test_the_only_model_is_found(client: Client, script: Script) -> None:
    assert await client.only_model() == "models/alphabet"

    script.model_names = []
    with pytest.raises(ModelNotFound, match="no model"):
        await client.only_model()


async def test_health(client: Client, script: Script) -> None:
    assert await client.check_health()
    script.is_serving = False
    assert not await client.check_health()
    assert [is_serving async for is_serving in client.watch_health()] == [True, False]


async def test_every_call_has_a_deadline(client: Client, script: Script) -> None:
    await client.generate("x", model="a")
    await client.score(["a"], model="a")
    await client.list_models()
    async with client.stream_generate("x", model="a") as stream:
        _ = [chunk async for chunk in stream]

    assert all(deadline is not None and 0 < deadline < 6 for deadline in script.deadlines)


@pytest.mark.slow
@pytest.mark.parametrize("code", [UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_idempotent_calls_are_retried(
    client: Client, script: Script, code: grpc.StatusCode
) -> None:
    """CANCELLED is what calls get that a stopping server had not begun."""
    script.failures.extend([Failure(code), Failure(code)])

    assert await client.score(["a"], model="a")
    assert len(script.requests) == 3


async def test_a_generation_is_never_retried(client: Client, script: Script) -> None:
    script.failures.extend([Failure(UNAVAILABLE), Failure(UNAVAILABLE)])

    with pytest.raises(Unavailable):
        await client.generate("x", model="a")
    with pytest.raises(Unavailable):
        _ = [chunk async for chunk in client.stream_generate("x", model="a")]
    assert len(script.requests) == 2


async def test_a_passed_deadline_raises_deadline_exceeded(address: str, script: Script) -> None:
    script.hangs = True

    async with Client(address, timeout_s=0.1) as client:
        with pytest.raises(DeadlineExceeded, match=f"{address} did not answer in time"):
            _ = [chunk async for chunk in client.stream_generate("x", model="a")]


async def test_loopback_addresses_use_no_http_proxy(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async with Client(address, timeout_s=5) as client:
        assert await client.only_model() == "models/alphabet"


def test_a_client_may_be_made_before_the_event_loop() -> None:
    client = Client("127.0.0.1:1", timeout_s=5)

    async def ask() -> None:
        async with client:
            await client.generate("x", model="a")

    with pytest.raises(Unavailable):
        asyncio.run(ask())


async def test_an_address_without_a_server_is_in_the_error() -> None:
    async with Client("127.0.0.1:1", timeout_s=5) as client:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1.*charlm serve"):
            await client.generate("x", model="a")


async def test_a_new_client_does_not_wait_for_the_backoff_of_another(script: Script) -> None:
    with socket.socket() as reserved:  # bound and not listening: connections are refused
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        async with Client(f"127.0.0.1:{port}") as refused:  # open, so that it is not forgotten
            with pytest.raises(Unavailable, match="charlm serve"):
                await refused.generate("x", model="a")

            async with serving(script, port) as address, Client(address) as client:
                assert (await client.generate("x", model="a")).outputs


def test_everything_public_is_in_all() -> None:
    public = {
        name
        for name, value in vars(charlm_client).items()
        if isinstance(value, type) and value.__module__.startswith("charlm_client")
    }

    assert public == set(charlm_client.__all__)


def test_every_error_is_public() -> None:
    def below(error: type[CharlmError]) -> set[str]:
        return {error.__name__}.union(*map(below, error.__subclasses__()))

    assert below(CharlmError) - {"NotInstalled"} <= set(charlm_client.__all__)
