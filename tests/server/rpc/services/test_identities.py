"""What any client can check of the factorization p(x_t | x_<t), for every family, bit for bit."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from charlm.v1 import context_pb2, distribution_pb2
from charlm.v1 import generation_pb2 as gen
from charlm.v1 import scoring_pb2 as pb
from charlm_model.text.vocabulary import END_OF_TEXT_ID
from tests.server.wire import TEXT, Wire, column, serving

KINDS = [
    ("ngram", "byte"),
    ("rnn", "char"),
    ("gru", "sentencepiece"),
    ("lstm", "char"),
    ("transformer", "byte"),
]
MIXTURES = (
    "linear-char=linear:rnn-char@3,lstm-char@1",
    "log_linear-char=log_linear:rnn-char@1.5,lstm-char@-0.5",
    "online-char=online:rnn-char,lstm-char",
)
NAMES = [f"{family}-{kind}" for family, kind in KINDS]
NAMES += [mixture.partition("=")[0] for mixture in MIXTURES]
FLOAT64 = {"distributions": True, "data_type": distribution_pb2.DATA_TYPE_FLOAT64}
every_model = pytest.mark.parametrize("model", NAMES)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving(*KINDS, mixtures=MIXTURES) as running:
        yield running


def text_for(model: str) -> str:
    return "the quick brown fox, jumps.\n" if model.endswith("char") else TEXT[:40]


def ids_for(wire: Wire, model: str) -> list[int]:
    return wire.models.get(f"models/{model}").vocabulary.encode(text_for(model))


def item(ids: list[int], after: list[int] | None = None, **options: Any) -> pb.ScoreItem:
    context = context_pb2.Context(token_ids={"ids": after or []})
    return pb.ScoreItem(context=context, token_ids={"ids": ids}, **options)


async def scores(wire: Wire, model: str, *items: pb.ScoreItem, **returns: Any) -> list[pb.Score]:
    options = distribution_pb2.ReturnOptions(**returns)
    request = pb.ScoreRequest(model=f"models/{model}", items=items, returns=options)
    return list((await wire.scoring.Score(request)).scores)


async def next_logprobs(wire: Wire, model: str, after: list[int]) -> NDArray[np.float64]:
    answer = await wire.scoring.GetNextDistribution(
        pb.GetNextDistributionRequest(
            model=f"models/{model}",
            context=context_pb2.Context(token_ids={"ids": after}),
            data_type=distribution_pb2.DATA_TYPE_FLOAT64,
        )
    )
    return np.frombuffer(answer.distribution.data, "<f8")


def rows_of(score: pb.Score) -> NDArray[np.float64]:
    dense = score.tokens.distributions
    return np.frombuffer(dense.data, "<f8").reshape(dense.num_positions, dense.vocab_size)


@every_model
async def test_every_distribution_sums_to_one(wire: Wire, model: str) -> None:
    ids = ids_for(wire, model)

    [exact] = await scores(wire, model, item(ids), **FLOAT64)
    [short] = await scores(wire, model, item(ids), distributions=True)

    sums = np.exp(rows_of(exact)).sum(axis=1)
    assert sums == pytest.approx(np.ones(len(ids)), abs=1e-12)
    rounded = np.frombuffer(short.tokens.distributions.data, "<f4").reshape(len(ids), -1)
    assert np.exp(rounded.astype(float)).sum(axis=1) == pytest.approx(np.ones(len(ids)), abs=1e-6)
    assert rounded.tobytes() == rows_of(exact).astype("<f4").tobytes()


@every_model
async def test_every_split_of_a_text_adds_up_bit_for_bit(wire: Wire, model: str) -> None:
    """Score(a + b) = Score(a) + Score(b after a), wherever it is cut."""
    ids = ids_for(wire, model)
    cuts = range(1, len(ids))

    whole, *halves = await scores(
        wire,
        model,
        item(ids),
        *(item(ids[:cut]) for cut in cuts),
        *(item(ids[cut:], after=ids[:cut]) for cut in cuts),
    )

    for first, second in zip(halves[: len(cuts)], halves[len(cuts) :], strict=True):
        logprobs = [*first.tokens.logprobs, *second.tokens.logprobs]
        assert logprobs == list(whole.tokens.logprobs)
        assert math.fsum(logprobs) == whole.total_logprob


@every_model
async def test_what_comes_next_is_the_very_row_that_scores_it(wire: Wire, model: str) -> None:
    ids = ids_for(wire, model)[:12]
    [score] = await scores(wire, model, item(ids), **FLOAT64)

    rows = [await next_logprobs(wire, model, ids[:position]) for position in range(len(ids))]

    assert np.array(rows).tobytes() == rows_of(score).tobytes()
    chosen = np.float32([row[token] for row, token in zip(rows, ids, strict=True)])
    assert chosen.tolist() == list(score.tokens.logprobs)


@every_model
async def test_an_end_of_text_adds_its_own_log_prob(wire: Wire, model: str) -> None:
    ids = ids_for(wire, model)

    plain, ended = await scores(wire, model, item(ids), item(ids, end_of_text=True))

    end = np.float32((await next_logprobs(wire, model, ids))[END_OF_TEXT_ID])
    assert list(ended.tokens.logprobs) == [*plain.tokens.logprobs, end]
    assert ended.total_logprob == math.fsum([*plain.tokens.logprobs, end])


@every_model
async def test_totals_ranks_and_entropies_follow_from_the_distributions(
    wire: Wire, model: str
) -> None:
    ids = ids_for(wire, model)
    [score] = await scores(wire, model, item(ids), ranks=True, entropies=True, **FLOAT64)
    rows = rows_of(score)

    assert score.total_logprob == math.fsum(score.tokens.logprobs)
    order = np.argsort(-rows, axis=1, kind="stable")
    ranks = [list(row).index(token) + 1 for row, token in zip(order, ids, strict=True)]
    assert list(score.tokens.ranks) == ranks
    entropies = -(np.exp(rows) * rows).sum(axis=1)
    assert list(score.tokens.entropies) == pytest.approx(entropies, rel=1e-6)
    assert score.is_greedy == (set(ranks) == {1})
    bits = -score.total_logprob / math.log(2)
    assert score.bits_per_byte == pytest.approx(bits / len(text_for(model).encode()))
    assert score.bits_per_character == pytest.approx(bits / len(text_for(model)))


@every_model
async def test_a_text_its_bytes_and_its_ids_are_the_same_thing(wire: Wire, model: str) -> None:
    text, cut = text_for(model), 20
    contexts = [
        context_pb2.Context(text=text[:cut]),
        context_pb2.Context(data=text[:cut].encode()),
        context_pb2.Context(token_ids={"ids": encoded(wire, model, text[:cut])}),
    ]
    continuations: list[dict[str, Any]] = [
        {"text": text[cut:]},
        {"data": text[cut:].encode()},
        {"token_ids": {"ids": encoded(wire, model, text[cut:])}},
    ]
    items = [pb.ScoreItem(context=c, **each) for c in contexts for each in continuations]

    first, *others = await scores(wire, model, *items)

    assert others == [first] * 8


def encoded(wire: Wire, model: str, text: str) -> list[int]:
    return wire.models.get(f"models/{model}").vocabulary.encode(text)


@every_model
async def test_the_start_of_a_text_is_the_empty_context(wire: Wire, model: str) -> None:
    ids = ids_for(wire, model)
    kinds = [None, context_pb2.Context(), context_pb2.Context(text="")]
    kinds += [context_pb2.Context(data=b""), context_pb2.Context(token_ids={})]
    items = [pb.ScoreItem(context=kind, token_ids={"ids": ids}) for kind in kinds]

    first, *others = await scores(wire, model, *items)

    assert others == [first] * 4


@pytest.mark.slow
@every_model
async def test_scores_have_the_same_bits_while_everything_else_goes_on(
    wire: Wire, model: str
) -> None:
    ids, name = ids_for(wire, model), f"models/{model}"
    [alone] = await scores(wire, model, item(ids))
    next_alone = await next_logprobs(wire, model, ids)
    prompt = gen.GenerateRequest(model=name, num_outputs=3)
    prompt.sampling.seed = 1
    prompt.context.token_ids.ids[:] = ids[:5]
    prompt.stopping.max_new_tokens = 100
    texts_alone = column(await wire.stream(prompt), "logprobs", 2)

    work = asyncio.gather(*(wire.stream(prompt) for _ in range(4)))
    together = await asyncio.gather(
        *(scores(wire, model, *[item(ids)] * number) for number in (1, 3, 7))
    )
    next_together = await next_logprobs(wire, model, ids)

    assert [score for answer in together for score in answer] == [alone] * 11
    assert next_together.tobytes() == next_alone.tobytes()
    assert all(column(responses, "logprobs", 2) == texts_alone for responses in await work)


@every_model
async def test_generated_text_scores_as_it_was_streamed(wire: Wire, model: str) -> None:
    request = gen.GenerateRequest(model=f"models/{model}", num_outputs=2)
    request.sampling.seed = 5
    request.stopping.max_new_tokens = 40
    request.context.token_ids.ids[:] = ids_for(wire, model)[:7]
    generated = await wire.generation.Generate(request)

    prompt = list(request.context.token_ids.ids)
    items = [item(list(output.tokens.token_ids), after=prompt) for output in generated.outputs]
    found = await scores(wire, model, *items)

    for output, score in zip(generated.outputs, found, strict=True):
        assert list(score.tokens.logprobs) == list(output.tokens.logprobs)
        assert score.total_logprob == output.end.total_logprob
