"""Gaps and top continuations over the wire: with the bits of Score, in turns with other work."""

import asyncio
from collections.abc import AsyncIterator
from math import exp, fsum, log

import grpc
import pytest

from charlm.v1 import context_pb2, scoring_pb2
from charlm.v1 import generation_pb2 as gen
from charlm.v1 import inference_pb2 as pb
from tests.server.wire import Wire, details_of, serving

MODELS = [
    ("lstm", "char"),
    ("gru", "byte"),
    ("ngram", "sentencepiece"),
    ("transformer", "char"),
    ("rnn", "char"),
]
MIXTURES = ("online-char=online:lstm-char,rnn-char",)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving(*MODELS, mixtures=MIXTURES) as running:
        yield running


def text(value: str) -> context_pb2.Context:
    return context_pb2.Context(text=value)


async def total_logprobs(wire: Wire, model: str, left: str, ends: list[list[int]]) -> list[float]:
    """What Score says of each of these token ids after the left text."""
    items = [
        scoring_pb2.ScoreItem(context=text(left), token_ids=context_pb2.TokenIds(ids=ids))
        for ids in ends
    ]
    request = scoring_pb2.ScoreRequest(model=model, items=items)
    return [score.total_logprob for score in (await wire.scoring.Score(request)).scores]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "gap_length"),
    [
        *(("lstm-char", 1), ("gru-byte", 1), ("ngram-sentencepiece", 1)),
        *(("lstm-char", 2), ("transformer-char", 2), ("rnn-char", 2), ("online-char", 2)),
    ],
)
async def test_a_short_gap_is_exact_and_has_the_bits_of_score(
    wire: Wire, model: str, gap_length: int
) -> None:
    left, right = "the ", "t sat on the mat"
    request = pb.FillGapRequest(
        model=f"models/{model}",
        left=text(left),
        right=right,
        gap_length=gap_length,
        max_fillings=1000,
    )

    answer = await wire.inference.FillGap(request)

    right_ids = wire.models.get(request.model).vocabulary.encode(right)
    ends = [[*filling.token_ids, *right_ids] for filling in answer.fillings]
    assert answer.is_exact
    assert not answer.HasField("effective_sample_size")
    totals = [filling.total_logprob for filling in answer.fillings]
    assert totals == await total_logprobs(wire, request.model, left, ends)
    vocab_size = wire.models.get(request.model).vocab_size
    assert len(answer.fillings) == min((vocab_size - 1) ** gap_length, 1000)
    assert answer.log_evidence == pytest.approx(log(fsum(map(exp, totals))), abs=1e-5)
    for filling in answer.fillings:
        assert filling.posterior == pytest.approx(exp(filling.total_logprob - answer.log_evidence))


async def test_a_long_gap_is_sampled_and_says_so(wire: Wire) -> None:
    request = pb.FillGapRequest(
        model="models/lstm-char",
        left=text("the "),
        right="sat",
        gap_length=4,
        num_particles=32,
        max_fillings=5,
        seed=3,
    )

    answer, again = await asyncio.gather(
        wire.inference.FillGap(request), wire.inference.FillGap(request)
    )

    assert answer == again
    assert not answer.is_exact
    assert 1 <= answer.effective_sample_size <= 32
    assert answer.seed == 3
    assert [len(filling.text) for filling in answer.fillings] == [4] * 5


@pytest.mark.slow
@pytest.mark.parametrize("model", ["-".join(names) for names in MODELS])
async def test_top_continuations_have_the_bits_of_score_and_none_better_is_missing(
    wire: Wire, model: str
) -> None:
    request = pb.ListTopContinuationsRequest(
        model=f"models/{model}",
        context=text("the "),
        num_continuations=300,
        length=2,
        max_steps=100_000,
    )

    answer = await wire.inference.ListTopContinuations(request)

    ends = [list(each.token_ids) for each in answer.continuations]
    totals = [each.total_logprob for each in answer.continuations]
    assert answer.is_complete
    assert totals == sorted(totals, reverse=True)
    assert totals == await total_logprobs(wire, request.model, "the ", ends)
    assert answer.missing_logprob_bound <= totals[-1]
    assert len({tuple(ids) for ids in ends}) == 300


@pytest.mark.slow
@pytest.mark.parametrize("model", ["lstm-char", "rnn-char", "transformer-char", "online-char"])
async def test_top_continuations_are_the_first_of_all_that_there_are(
    wire: Wire, model: str
) -> None:
    request = pb.ListTopContinuationsRequest(
        model=f"models/{model}", context=text("a "), num_continuations=50, length=2
    )

    answer = await wire.inference.ListTopContinuations(request)

    vocab_size = wire.models.get(request.model).vocab_size
    every = [[0], *([one, two] for one in range(1, vocab_size) for two in range(vocab_size))]
    totals = await total_logprobs(wire, request.model, "a ", every)
    assert answer.is_complete
    found = [each.total_logprob for each in answer.continuations]
    assert found == sorted(totals, reverse=True)[:50]


async def test_a_search_cut_short_bounds_what_is_missing(wire: Wire) -> None:
    request = pb.ListTopContinuationsRequest(
        model="models/lstm-char", num_continuations=3, length=8, max_steps=40
    )

    answer = await wire.inference.ListTopContinuations(request)

    assert not answer.is_complete
    assert answer.num_steps <= 40
    assert answer.missing_logprob_bound < 0


async def test_generation_goes_on_unchanged_while_a_search_runs(wire: Wire) -> None:
    free = gen.GenerateRequest(model="models/lstm-char", context=text("ab"))
    free.sampling.seed = 5
    free.sampling.biases.add(token_id=0, bias=-100)
    request = pb.FillGapRequest(
        model="models/lstm-char", left=text("the "), right="cat sat on", gap_length=2
    )
    alone = await wire.generation.Generate(free)

    gap, *accompanied = await asyncio.gather(
        wire.inference.FillGap(request), *(wire.generation.Generate(free) for _ in range(3))
    )

    assert gap.is_exact
    assert all(answer.outputs == alone.outputs for answer in accompanied)


async def test_a_search_past_its_deadline_is_dropped(wire: Wire) -> None:
    request = pb.FillGapRequest(
        model="models/gru-byte", left=text("the "), right="cat" * 50, gap_length=2
    )

    with pytest.raises(grpc.aio.AioRpcError, match="s of work; allow more time") as caught:
        await wire.inference.FillGap(request, timeout=0.3)

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await wire.models.get("models/gru-byte").scheduler.nothing_open()


@pytest.mark.slow
async def test_a_listing_that_runs_out_of_time_returns_partial_results(wire: Wire) -> None:
    request = pb.ListTopContinuationsRequest(
        model="models/gru-byte", num_continuations=1000, length=60, max_steps=1_000_000
    )

    answer = await wire.inference.ListTopContinuations(request, timeout=2.0)

    assert not answer.is_complete
    assert answer.num_steps > 0
    assert answer.missing_logprob_bound < 0


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"gap_length": 0}, "gap_length", "from 1 to 64"),
        ({"gap_length": 65}, "gap_length", "from 1 to 64"),
        ({"gap_length": 1, "max_fillings": 1001}, "max_fillings", "from 1 to 1000"),
        ({"gap_length": 3, "num_particles": 5000}, "num_particles", "from 1 to 4096"),
        ({"gap_length": 2, "right": "a" * 40_000}, "right", "at most 22221 tokens"),
        ({"gap_length": 1, "right": "é"}, "right", "U\\+00E9"),
    ],
)
async def test_a_gap_out_of_range_is_refused_by_its_field(
    wire: Wire, fields: dict[str, object], field: str, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
        await wire.inference.FillGap(pb.FillGapRequest(model="models/lstm-char", **fields))

    assert details_of(caught.value)["ErrorInfo"].metadata["field"] == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"length": 0}, "length"),
        ({"length": 65}, "length"),
        ({"length": 1, "num_continuations": 0}, "num_continuations"),
        ({"length": 1, "max_steps": 1_000_001}, "max_steps"),
    ],
)
async def test_a_listing_out_of_range_is_refused_by_its_field(
    wire: Wire, fields: dict[str, int], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.inference.ListTopContinuations(
            pb.ListTopContinuationsRequest(model="models/lstm-char", **fields)
        )

    assert details_of(caught.value)["ErrorInfo"].metadata["field"] == field
