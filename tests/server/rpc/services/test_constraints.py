"""Constraints across the wire: outputs in their language, and no trace of them in other rows."""

import asyncio
import re
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest

from charlm.v1 import context_pb2, distribution_pb2, sampling_pb2, scoring_pb2
from charlm.v1 import generation_pb2 as gen
from tests.server.wire import Wire, column, details_of, serving, text_of

PATTERNS = {
    "lstm-char": ["[a-f]{3,8}", "(ab|cd)+ ef", "[a-z]+,\n[a-z]{2}"],
    "gru-byte": ["[가-힣]{2,4}", r"\d{4}-\d{2}", "(다람쥐|emoji 👩‍🚀)+!"],
    "ngram-sentencepiece": ["[가-힣 ]{1,9}", r"[\w ]{1,12}\.", "naïve( text)?"],
}


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving(
        ("lstm", "char"), ("gru", "byte"), ("ngram", "sentencepiece"), ("transformer", "char")
    ) as running:
        yield running


def request_to(
    model: str, constraint: sampling_pb2.Constraint | None, max_new_tokens: int = 40, seed: int = 3
) -> gen.GenerateRequest:
    return gen.GenerateRequest(
        model=f"models/{model}",
        context=context_pb2.Context(text="ab"),
        sampling=sampling_pb2.SamplingParams(seed=seed),
        stopping=sampling_pb2.StoppingParams(max_new_tokens=max_new_tokens),
        constraint=constraint,
        num_outputs=4,
    )


def regex(pattern: str) -> sampling_pb2.Constraint:
    return sampling_pb2.Constraint(regex=pattern)


@pytest.mark.slow
@pytest.mark.parametrize("model", PATTERNS)
async def test_every_output_is_in_the_language_even_at_its_longest(wire: Wire, model: str) -> None:
    for pattern in PATTERNS[model]:
        for seed in range(3):
            request = request_to(model, regex(pattern), seed=seed)
            whole = await wire.generation.Generate(request)

            for output in whole.outputs:
                assert re.fullmatch(pattern, output.text), (pattern, output.text)
                assert output.end.finish_reason in (
                    gen.FINISH_REASON_CONSTRAINT_COMPLETE,
                    gen.FINISH_REASON_END_OF_TEXT,
                    gen.FINISH_REASON_LENGTH,
                )


async def test_the_log_masses_are_what_the_mask_left(wire: Wire) -> None:
    """Log-prob under the model is the mass that was left and the draw from it."""
    request = request_to("lstm-char", regex("[a-f]{3,8}"))
    request.returns.CopyFrom(
        distribution_pb2.ReturnOptions(
            logprobs=True, distributions=True, data_type=distribution_pb2.DATA_TYPE_FLOAT64
        )
    )

    output = (await wire.generation.Generate(request)).outputs[0]

    tokens = output.tokens
    masses = np.array(tokens.constraint_log_masses)
    np.testing.assert_allclose(tokens.logprobs, np.add(tokens.sampling_logprobs, masses), atol=1e-5)
    allowed = np.log(np.exp(_distributions(tokens)[0][5:11]).sum())  # after "\n ,."
    assert masses[0] == pytest.approx(allowed, abs=1e-5)
    assert (masses < -0.1).any()


def _distributions(tokens: gen.TokenSeries) -> np.ndarray:
    data = tokens.distributions.data
    return np.frombuffer(data, dtype="<f8").reshape(len(tokens.token_ids), -1)


async def test_choices_and_allowed_characters(wire: Wire) -> None:
    choices = sampling_pb2.Choices(texts=["cat", "catalog", "dog"])
    chosen = await wire.generation.Generate(
        request_to("lstm-char", sampling_pb2.Constraint(choices=choices))
    )
    spelled = await wire.generation.Generate(
        request_to("lstm-char", sampling_pb2.Constraint(allowed_characters="xyzω"))
    )

    assert {output.text for output in chosen.outputs} <= set(choices.texts)
    assert all(set(output.text) <= set("xyz") for output in spelled.outputs)


async def test_streamed_and_whole_are_one_text_with_one_series(wire: Wire) -> None:
    request = request_to("gru-byte", regex("[가-힣]{2,40}"), max_new_tokens=60)
    whole = await wire.generation.Generate(request)

    for max_chunk_tokens in (1, 5, 64):
        responses = await wire.stream(request, max_chunk_tokens=max_chunk_tokens)
        for output in whole.outputs:
            assert text_of(responses, output.index) == output.text
            masses = column(responses, "constraint_log_masses", output.index)
            assert masses == list(output.tokens.constraint_log_masses)
            assert len(masses) == len(output.tokens.token_ids)


async def test_constrained_company_leaves_the_bits_of_other_rows_unchanged(wire: Wire) -> None:
    free = request_to("lstm-char", None, max_new_tokens=200)
    alone = await wire.generation.Generate(free)

    crowd = [
        wire.generation.Generate(request_to("lstm-char", regex("[a-f ]+"), 150, i)) for i in (1, 2)
    ]
    accompanied, *_ = await asyncio.gather(wire.generation.Generate(free), *crowd)

    for one, other in zip(alone.outputs, accompanied.outputs, strict=True):
        assert one.tokens == other.tokens
        assert not one.tokens.constraint_log_masses


@pytest.mark.parametrize(
    ("constraint", "field"),
    [
        (regex("(a|b)*a(a|b){20}"), "constraint.regex"),
        (regex("a("), "constraint.regex"),
        (sampling_pb2.Constraint(), "constraint.kind"),
        (sampling_pb2.Constraint(choices=sampling_pb2.Choices()), "constraint.choices.texts"),
        (
            sampling_pb2.Constraint(choices=sampling_pb2.Choices(texts=["a", "é"])),
            "constraint.choices.texts[1]",
        ),
        (sampling_pb2.Constraint(allowed_characters="é"), "constraint.allowed_characters"),
        (regex("a{41}"), "stopping.max_new_tokens"),
    ],
)
async def test_what_cannot_be_held_to_is_refused_by_its_field(
    wire: Wire, constraint: sampling_pb2.Constraint, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.generation.Generate(request_to("lstm-char", constraint))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details_of(caught.value)["ErrorInfo"].metadata["field"] == field


async def test_a_choice_of_unknown_characters_is_not_told_to_have_them_replaced(wire: Wire) -> None:
    request = request_to("lstm-char", sampling_pb2.Constraint(choices={"texts": ["aé"]}))
    request.unknown_characters = context_pb2.UNKNOWN_CHARACTER_POLICY_REPLACE

    with pytest.raises(grpc.aio.AioRpcError, match=r"'aé'; it must be made of characters in the"):
        await wire.generation.Generate(request)


REJECTION, SMC = "CONSTRAINT_MODE_REJECTION", "CONSTRAINT_MODE_SMC"
LOCAL = "CONSTRAINT_MODE_LOCAL_MASK"


def whole(mode: str, pattern: str = "[a-m ]{2,6}[^a]*", **options: int) -> sampling_pb2.Constraint:
    return sampling_pb2.Constraint(regex=pattern, mode=mode, **options)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [REJECTION, SMC])
@pytest.mark.parametrize("model", [*PATTERNS, "transformer-char"])
async def test_whole_outputs_are_in_their_language_and_have_the_bits_of_score(
    wire: Wire, model: str, mode: str
) -> None:
    request = request_to(model, whole(mode, "[^xyz]{3,}", max_attempts=5000), max_new_tokens=6)
    request.returns.CopyFrom(distribution_pb2.ReturnOptions(logprobs=True, ranks=True))

    answer = await wire.generation.Generate(request)
    streamed = await wire.stream(request)

    for output in answer.outputs:
        assert re.fullmatch("[^xyz]{3,}", output.text)
        assert output.end.HasField("log_evidence") == (mode == SMC)
        assert output.end.HasField("effective_sample_size") == (mode == SMC)
        assert text_of(streamed, output.index) == output.text
        is_ended = output.end.finish_reason == gen.FINISH_REASON_END_OF_TEXT
        item = scoring_pb2.ScoreItem(
            context=request.context,
            token_ids=context_pb2.TokenIds(ids=output.tokens.token_ids),
        )
        scored = await wire.scoring.Score(
            scoring_pb2.ScoreRequest(model=request.model, items=[item], returns=request.returns)
        )
        assert list(scored.scores[0].tokens.logprobs) == list(output.tokens.logprobs)
        assert list(scored.scores[0].tokens.ranks) == list(output.tokens.ranks)
        assert output.end.num_new_tokens == len(output.tokens.token_ids) + is_ended


@pytest.mark.parametrize("mode", [REJECTION, SMC])
async def test_a_whole_output_is_the_same_in_any_company(wire: Wire, mode: str) -> None:
    request = request_to("lstm-char", whole(mode, max_attempts=5000), max_new_tokens=30)
    free = request_to("lstm-char", None, max_new_tokens=100)
    alone = await wire.generation.Generate(request)
    free_alone = await wire.generation.Generate(free)

    answers = await asyncio.gather(
        *(wire.generation.Generate(each) for each in (free, request, request, free))
    )

    assert [answer.outputs for answer in answers] == [
        free_alone.outputs,
        alone.outputs,
        alone.outputs,
        free_alone.outputs,
    ]


async def test_the_evidence_of_a_language_with_one_text_is_its_probability(wire: Wire) -> None:
    request = request_to("lstm-char", whole(SMC, "(ab){4}", num_particles=3))

    output = (await wire.generation.Generate(request)).outputs[0]

    assert output.text == "abababab"
    assert output.end.finish_reason == gen.FINISH_REASON_CONSTRAINT_COMPLETE
    # There is one text, so every particle is it and its evidence is its probability.
    assert output.end.log_evidence == pytest.approx(output.end.total_logprob, abs=1e-5)
    assert output.end.effective_sample_size == pytest.approx(3)


@pytest.mark.parametrize(
    ("constraint", "stops", "field", "words"),
    [
        (whole(REJECTION, "(zq){9}", max_attempts=3), [], "constraint.max_attempts", "mode SMC"),
        (whole(SMC, num_particles=257), [], "constraint.num_particles", "from 1 to 256"),
        (whole(REJECTION, max_attempts=0), [], "constraint.max_attempts", "from 1 to 10000"),
        (whole(LOCAL, num_particles=257), [], "constraint.num_particles", "from 1 to 256"),
        (whole(LOCAL, max_attempts=0), [], "constraint.max_attempts", "from 1 to 10000"),
        (
            whole(LOCAL, "a{50}"),
            [],
            "stopping.max_new_tokens",
            "at least 50, the length of the constraint",
        ),
        (whole(SMC), ["x"], "stopping.stop_sequences", "empty"),
        (sampling_pb2.Constraint(regex="a", mode=9), [], "constraint.mode", "REJECTION or SMC"),
    ],
)
async def test_what_no_whole_output_can_be_is_refused_by_its_field(
    wire: Wire, constraint: sampling_pb2.Constraint, stops: list[str], field: str, words: str
) -> None:
    request = request_to("lstm-char", constraint)
    request.stopping.stop_sequences.extend(stops)

    with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
        await wire.generation.Generate(request)

    assert details_of(caught.value)["ErrorInfo"].metadata["field"] == field


async def test_outputs_drawn_as_wholes_take_no_rows_from_others(wire: Wire) -> None:
    many = request_to("lstm-char", whole(SMC, "[a-f ]+", num_particles=64), max_new_tokens=400)
    many.num_outputs = 64  # of a server with 8 rows
    free = request_to("lstm-char", None, max_new_tokens=20)

    slow = asyncio.ensure_future(wire.generation.Generate(many))
    answer = await wire.generation.Generate(free)

    assert len(answer.outputs) == 4
    assert not slow.done()
    slow.cancel()
    await wire.models.get("models/lstm-char").scheduler.nothing_open()
