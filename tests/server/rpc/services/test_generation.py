"""Generation over the real wire: exact, whole, cut anywhere, and clear about what it refuses."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from charlm.v1 import context_pb2, models_pb2, sampling_pb2, scoring_pb2
from charlm.v1 import generation_pb2 as gen
from charlm_model.inference.sampling_loop import generate
from charlm_model.sampling.params import SamplingParams
from charlm_server.config.limits import Limits
from charlm_server.rpc.convert.fields import returns_from
from charlm_server.rpc.services.generation import least_bytes_per_token
from tests.server.wire import Wire, column, data_of, details_of, serving, text_of

FAMILIES = ("rnn", "gru", "lstm", "transformer")
VOCABULARIES = ("char", "byte", "sentencepiece")
HANGUL_AND_EMOJI = "다람쥐 👩‍🚀"


def request_to(model: str, text: str = "ab", **options: Any) -> gen.GenerateRequest:
    """A request with a seed; max_new_tokens and stops are options of their own."""
    stopping = sampling_pb2.StoppingParams(
        max_new_tokens=options.pop("max_new_tokens", 40), stop_sequences=options.pop("stops", [])
    )
    sampling = options.pop("sampling", sampling_pb2.SamplingParams(seed=7))
    # Noise would soon sample an end of text; what is tested here needs more than that.
    sampling.biases.append(sampling_pb2.TokenBias(token_id=0, bias=-100))
    context = context_pb2.Context(text=text)
    return gen.GenerateRequest(
        model=f"models/{model}", context=context, sampling=sampling, stopping=stopping, **options
    )


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving(("lstm", "char"), ("gru", "byte")) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("kind", VOCABULARIES)
async def test_chunks_add_up_to_the_final_text_for_every_chunking(kind: str) -> None:
    prompt = "ab" if kind == "char" else HANGUL_AND_EMOJI
    request = request_to(f"gru-{kind}", prompt, max_new_tokens=150, num_outputs=2)
    async with serving(("gru", kind)) as wire:
        whole = await wire.generation.Generate(request)
        for max_chunk_tokens in (1, 2, 3, 7, 64):
            responses = await wire.stream(request, max_chunk_tokens=max_chunk_tokens)

            for output in whole.outputs:
                assert text_of(responses, output.index) == output.text
                assert data_of(responses, output.index) == output.data
                assert output.data.decode(errors="replace") == output.text
                assert column(responses, "logprobs", output.index) == list(output.tokens.logprobs)
            sizes = [len(c.tokens.token_ids) for r in responses for c in r.chunks]
            assert max(sizes) <= max_chunk_tokens


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
async def test_streamed_logprobs_are_the_score_of_the_text_bit_for_bit(family: str) -> None:
    async with serving((family, "byte")) as wire:
        request = request_to(f"{family}-byte", HANGUL_AND_EMOJI, max_new_tokens=90)
        responses = await wire.stream(request)
        item = scoring_pb2.ScoreItem(context=request.context, data=data_of(responses))

        answer = await wire.scoring.Score(
            scoring_pb2.ScoreRequest(model=request.model, items=[item])
        )

    end = responses[-1].chunks[-1].end
    assert list(answer.scores[0].tokens.logprobs) == column(responses, "logprobs")
    assert answer.scores[0].total_logprob == end.total_logprob


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
async def test_the_same_bits_alone_and_in_any_company(family: str) -> None:
    """Co-tenants of all lengths come, go and are cut off around the same request."""
    model = f"{family}-char"
    request = request_to(model, "the fox", max_new_tokens=120, num_outputs=2)
    async with serving((family, "char")) as wire:
        alone = await wire.stream(request)
        company = [
            asyncio.create_task(wire.stream(request_to(model, "x" * i, max_new_tokens=9 * i + 1)))
            for i in range(20)
        ]
        calls = []
        for i in range(5):
            calls.append(asyncio.create_task(wire.stream(request)))
            await asyncio.sleep(0)
            company[3 * i].cancel()
        together = await asyncio.gather(*calls)
        await asyncio.gather(*company, return_exceptions=True)

    for responses in together:
        for index in range(2):
            for name in ("token_ids", "logprobs", "sampling_logprobs"):
                assert column(responses, name, index) == column(alone, name, index)


@pytest.mark.parametrize("temperature", [0.0, 0.8, 1.0])
async def test_the_engine_agrees_with_the_plain_sampling_loop(
    wire: Wire, temperature: float
) -> None:
    loaded = wire.models.get("models/lstm-char")
    sampling = sampling_pb2.SamplingParams(
        seed=11, temperature=temperature, top_k=12, repetition_penalty=1.2
    )

    answer = await wire.generation.Generate(request_to("lstm-char", "abc", sampling=sampling))

    expected = generate(
        loaded.checkpoint.model,
        loaded.vocabulary.encode("abc"),
        max_new_tokens=40,
        params=SamplingParams(
            temperature=temperature, top_k=12, repetition_penalty=1.2, logit_bias={0: -100.0}
        ),
        seed=11,
    )
    assert list(answer.outputs[0].tokens.token_ids) == expected.ids
    assert list(answer.outputs[0].tokens.logprobs) == expected.logprobs


async def test_outputs_of_one_call_differ_and_do_not_depend_on_their_number(wire: Wire) -> None:
    two, five = [
        await wire.generation.Generate(request_to("lstm-char", num_outputs=num)) for num in (2, 5)
    ]

    assert five.outputs[:2] == two.outputs
    assert len({output.text for output in five.outputs}) == 5


async def test_a_stop_sequence_never_leaks(wire: Wire) -> None:
    free = await wire.generation.Generate(request_to("lstm-char", max_new_tokens=100))
    stop = free.outputs[0].text[40:43]
    end = free.outputs[0].text.index(stop)
    request = request_to("lstm-char", max_new_tokens=100, stops=[stop, "never in it"])

    responses = await wire.stream(request, max_chunk_tokens=1)

    last = responses[-1].chunks[-1].end
    assert text_of(responses) == free.outputs[0].text[:end]
    assert last.finish_reason == gen.FINISH_REASON_STOP_SEQUENCE
    assert last.matched_stop_sequence == stop
    assert last.num_new_tokens == end + 3


async def test_a_seed_is_drawn_when_absent_and_echoed(wire: Wire) -> None:
    unseeded = request_to("lstm-char", sampling=sampling_pb2.SamplingParams())

    first, second = [await wire.generation.Generate(unseeded) for _ in range(2)]
    again = await wire.generation.Generate(
        request_to("lstm-char", sampling=sampling_pb2.SamplingParams(seed=first.seed))
    )

    assert first.seed != second.seed
    assert max(first.seed, second.seed) < 2**53  # a float64, which is JavaScript's only number
    assert again.outputs == first.outputs


async def test_the_first_message_alone_has_the_header(wire: Wire) -> None:
    responses = await wire.stream(request_to("lstm-char"), max_chunk_tokens=4)

    assert [r.HasField("header") for r in responses] == [True] + [False] * (len(responses) - 1)
    assert responses[0].header.seed == 7
    assert responses[0].header.num_prompt_tokens == 2
    assert responses[0].header.numerics.is_batch_invariant
    assert [r.HasField("timings") for r in responses] == [False] * (len(responses) - 1) + [True]


async def test_several_models_at_once(wire: Wire) -> None:
    answers = await asyncio.gather(
        *(wire.generation.Generate(request_to(name)) for name in ("lstm-char", "gru-byte") * 3)
    )

    assert [answer.model for answer in answers] == ["models/lstm-char", "models/gru-byte"] * 3
    assert answers[0].outputs == answers[2].outputs == answers[4].outputs


async def test_details_are_returned_on_request(wire: Wire) -> None:
    returns = {"ranks": True, "entropies": True, "top_k": 3, "distributions": True}

    answer = await wire.generation.Generate(
        request_to("lstm-char", max_new_tokens=4, returns=returns)
    )

    tokens = answer.outputs[0].tokens
    assert len(tokens.ranks) == len(tokens.entropies) == 4
    assert len(tokens.top_tokens.token_ids) == 12
    assert tokens.distributions.num_positions == 4
    assert len(tokens.distributions.data) == 4 * 4 * tokens.distributions.vocab_size


async def test_a_cancelled_unary_call_frees_its_row_too(wire: Wire) -> None:
    scheduler = wire.models.get("models/lstm-char").scheduler
    call = wire.generation.Generate(request_to("lstm-char", max_new_tokens=1_000_000))
    while scheduler.num_open < 1:  # noqa: ASYNC110 - it yields to the loop, it does not wait
        await asyncio.sleep(0)

    call.cancel()

    await asyncio.wait_for(scheduler.nothing_open(), 5)


async def test_a_cancelled_call_frees_its_row(wire: Wire) -> None:
    endless = request_to("lstm-char", max_new_tokens=1_000_000)
    call = wire.generation.StreamGenerate(gen.StreamGenerateRequest(generate=endless))
    await call.read()
    scheduler = wire.models.get("models/lstm-char").scheduler
    assert scheduler.num_open == 1

    call.cancel()
    await asyncio.wait_for(scheduler.nothing_open(), 5)

    assert scheduler.num_open == 0


@pytest.mark.slow
async def test_slow_readers_do_not_stall_the_others() -> None:
    """They take every row there is, read one message and stop; then others have the rows."""
    endless = gen.StreamGenerateRequest(generate=request_to("lstm-char", max_new_tokens=1_000_000))
    limits = Limits(max_waiting_bytes=10_000)
    async with serving(("lstm", "char"), limits=limits) as wire, wire.unbuffered() as slow_wire:
        calls = [slow_wire.generation.StreamGenerate(endless) for _ in range(8)]
        for call in calls:
            await call.read()

        answers = await asyncio.gather(
            *(wire.generation.Generate(request_to("lstm-char")) for _ in range(8))
        )

        assert all(answer.outputs == answers[0].outputs for answer in answers)
        for call in calls:
            call.cancel()


@pytest.mark.slow
async def test_a_deadline_returns_what_there_is(wire: Wire) -> None:
    endless = request_to("lstm-char", max_new_tokens=1_000_000)

    responses = [
        response
        async for response in wire.generation.StreamGenerate(
            gen.StreamGenerateRequest(generate=endless), timeout=0.4
        )
    ]

    assert responses[-1].chunks[-1].end.finish_reason == gen.FINISH_REASON_TIME_LIMIT
    assert text_of(responses)


async def test_the_callers_own_time_limit_returns_what_there_is(wire: Wire) -> None:
    request = request_to("lstm-char", max_new_tokens=1_000_000)
    request.stopping.max_time.FromMilliseconds(100)

    responses = await wire.stream(request)

    assert responses[-1].chunks[-1].end.finish_reason == gen.FINISH_REASON_TIME_LIMIT


async def test_a_call_that_cannot_start_before_its_deadline_is_refused() -> None:
    async with serving(("lstm", "char")) as wire:
        filling = request_to("lstm-char", max_new_tokens=1_000_000, num_outputs=8)
        running = wire.generation.StreamGenerate(gen.StreamGenerateRequest(generate=filling))
        await running.read()

        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await wire.generation.Generate(request_to("lstm-char"), timeout=0.05)

        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        running.cancel()


async def test_a_full_queue_says_when_to_come_back() -> None:
    async with serving(("lstm", "char"), limits=Limits(max_queued_requests=1)) as wire:
        scheduler = wire.models.get("models/lstm-char").scheduler
        filling = request_to("lstm-char", max_new_tokens=1_000_000, num_outputs=8)
        running = wire.generation.StreamGenerate(gen.StreamGenerateRequest(generate=filling))
        await running.read()
        queued = wire.generation.Generate(filling)
        while scheduler.num_open < 2:  # noqa: ASYNC110 - it yields to the loop, it does not wait
            await asyncio.sleep(0)  # let it come in

        with pytest.raises(grpc.aio.AioRpcError, match="queue is full") as refusal:
            await wire.generation.Generate(request_to("lstm-char"))

        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        retry_info: Any = details_of(refusal.value)["RetryInfo"]
        assert retry_info.retry_delay.ToMilliseconds() > 0
        running.cancel()
        queued.cancel()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampling.temperature", -0.1),
        ("sampling.temperature", 100.5),
        ("sampling.temperature", float("nan")),
        ("sampling.top_k", 2**32 - 1),
        ("sampling.top_p", 0.0),
        ("sampling.top_p", 1.1),
        ("sampling.min_p", -0.1),
        ("sampling.min_p", 1.1),
        ("sampling.typical_p", 0.0),
        ("sampling.repetition_penalty", 0.0),
        ("sampling.repetition_penalty", 10.5),
        ("sampling.presence_penalty", 101.0),
        ("sampling.frequency_penalty", -101.0),
        ("sampling.penalty_window", 70_000),
        ("stopping.max_new_tokens", 0),
        ("stopping.max_new_tokens", 2_000_000),
        ("num_outputs", 0),
        ("num_outputs", 65),
        ("returns.top_k", 1000),
        ("returns.data_type", 99),
        ("unknown_characters", 99),
    ],
)
async def test_a_value_out_of_range_is_refused_with_its_field(
    wire: Wire, field: str, value: float
) -> None:
    request = request_to("lstm-char")
    message: Any = request
    *parents, name = field.split(".")
    for parent in parents:
        message = getattr(message, parent)
    setattr(message, name, value)

    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await wire.generation.Generate(request)

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (refusal.value.details() or "").startswith(f"{field} is ")
    violations = details_of(refusal.value)["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert violations[0].field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"stopping": {"stop_sequences": [""]}}, "stopping.stop_sequences[0]"),
        ({"stopping": {"stop_sequences": ["a" * 257]}}, "stopping.stop_sequences[0]"),
        ({"stopping": {"stop_sequences": ["a"] * 17}}, "stopping.stop_sequences"),
        ({"stopping": {"max_time": {"seconds": 0}}}, "stopping.max_time"),
        ({"stopping": {"max_time": {"seconds": 1, "nanos": -5}}}, "stopping.max_time"),
        ({"stopping": {"max_time": {"seconds": 1, "nanos": 10**9}}}, "stopping.max_time"),
        ({"stopping": {"max_time": {"seconds": 10**17}}}, "stopping.max_time"),
        ({"sampling": {"biases": [{"token_id": 999}]}}, "sampling.biases[0].token_id"),
        ({"sampling": {"biases": [{"token_id": 1, "bias": 101}]}}, "sampling.biases[0].bias"),
        ({"context": {"token_ids": {"ids": [1, 999]}}}, "context.token_ids.ids[1]"),
        ({"context": {"data": b"a\xff"}}, "context.data"),
        ({"context": {"text": "a\u1234"}}, "context.text"),
        ({"append_text": "\u1234"}, "append_text"),
    ],
)
async def test_a_bad_part_is_refused_with_its_field(
    wire: Wire, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await wire.generation.Generate(gen.GenerateRequest(model="models/lstm-char", **change))

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    violations = details_of(refusal.value)["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert violations[0].field == field


async def test_a_refusal_lists_all_allowed_values(wire: Wire) -> None:
    for options, words in (
        ({"sampling": sampling_pb2.SamplingParams(top_k=2**31)}, "from 0 to 2147483647"),
        ({"unknown_characters": 9}, "UNKNOWN_CHARACTER_POLICY_REPLACE"),
        ({"returns": {"data_type": 9}}, "one of .*DATA_TYPE_FLOAT64"),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=words):
            await wire.generation.Generate(request_to("lstm-char", **options))


async def test_an_unknown_character_is_named_with_its_offset(wire: Wire) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=r"'é'.*offset 3") as refusal:
        await wire.generation.Generate(request_to("lstm-char", "caf\u00e9"))

    info: Any = details_of(refusal.value)["ErrorInfo"]
    assert (info.reason, info.domain) == ("UNKNOWN_CHARACTER", "charlm")
    assert info.metadata["offset"] == "3"


async def test_an_unknown_character_may_be_replaced(wire: Wire) -> None:
    replace = context_pb2.UNKNOWN_CHARACTER_POLICY_REPLACE

    answer = await wire.generation.Generate(
        request_to("lstm-char", "caf\u00e9", unknown_characters=replace)
    )

    assert answer.num_prompt_tokens == 4


async def test_an_unknown_model_is_not_found_and_the_known_are_named(wire: Wire) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="models/gru-byte, models/lstm-char") as refusal:
        await wire.generation.Generate(request_to("nobody"))

    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    assert "ResourceInfo" in details_of(refusal.value)


async def test_a_model_must_be_named(wire: Wire) -> None:
    calls = {
        "model": wire.generation.Generate(gen.GenerateRequest()),
        "name": wire.model_service.GetModel(models_pb2.GetModelRequest()),
        "models[0]": wire.scoring.Compare(scoring_pb2.CompareRequest(models=[""])),
    }

    for field, call in calls.items():
        with pytest.raises(grpc.aio.AioRpcError, match="must be the name of a loaded") as refusal:
            await call
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in str(details_of(refusal.value)["BadRequest"])


async def test_what_is_not_offered_says_so(wire: Wire) -> None:
    request = gen.GenerateRequest(model="models/lstm-char", context={"resume_token": b"x"})

    with pytest.raises(grpc.aio.AioRpcError, match="not supported") as refusal:
        await wire.generation.Generate(request)

    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_text_appended_is_read_after_the_context(wire: Wire) -> None:
    whole = await wire.generation.Generate(request_to("lstm-char", "abcd"))
    joined = await wire.generation.Generate(request_to("lstm-char", "ab", append_text="cd"))

    assert joined.outputs == whole.outputs


@pytest.mark.parametrize("returns", [{}, {"logprobs": False}, {"ranks": True, "top_k": 3}])
async def test_what_an_answer_takes_is_known_while_it_is_made(
    wire: Wire, returns: dict[str, Any]
) -> None:
    request = request_to("lstm-char", max_new_tokens=500, returns=returns)
    request.stopping.ignore_end_of_text = True

    response = await wire.generation.Generate(request)

    model = wire.models.get("models/lstm-char")
    returns = returns_from(request.returns, model.limits, model.vocab_size)
    least = 500 * (2 + least_bytes_per_token(returns, model))
    assert least <= response.ByteSize() <= 1.3 * least + 300


@pytest.mark.slow
async def test_an_answer_larger_than_a_message_is_refused_before_it_is_whole() -> None:
    limits = Limits(max_response_message_bytes=10_000)
    async with serving(("lstm", "char"), limits=limits) as wire:
        with pytest.raises(grpc.aio.AioRpcError, match="StreamGenerate") as refusal:
            await wire.generation.Generate(request_to("lstm-char", max_new_tokens=1_000_000))

        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
