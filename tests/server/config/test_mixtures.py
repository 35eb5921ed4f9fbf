"""Mixtures: named on the command line, served like any other model."""

import asyncio
from collections.abc import AsyncIterator
from math import exp, fsum

import pytest

from charlm.v1 import context_pb2, inference_pb2, models_pb2, sampling_pb2, scoring_pb2
from charlm.v1 import generation_pb2 as gen
from charlm_server.config.mixtures import MixtureConfig, named_mixtures
from charlm_server.config.settings import ServeConfig
from charlm_server.errors.base import ServeError
from charlm_server.models.loading import mixtures_of
from tests.server.wire import Wire, column, load, serving

LOADED = ("models/lstm-char", "models/gru-char")
MIXTURES = (
    "mean=linear:lstm-char@3,gru-char@1",
    "product=log_linear:lstm-char@1.5,models/gru-char@-0.5",
    "learning=online:lstm-char,gru-char",
)
NAMES = ("mean", "product", "learning")


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving(("lstm", "char"), ("gru", "char"), mixtures=MIXTURES) as running:
        yield running


async def probabilities(wire: Wire, model: str, text: str) -> list[float]:
    request = scoring_pb2.GetNextDistributionRequest(
        model=f"models/{model}", context=context_pb2.Context(text=text), top_k=31
    )
    top = (await wire.scoring.GetNextDistribution(request)).top_tokens
    by_id = dict(zip(top.token_ids, map(exp, top.logprobs), strict=True))
    return [by_id[token_id] for token_id in sorted(by_id)]


@pytest.mark.slow
async def test_a_linear_mixture_returns_the_weighted_mean(wire: Wire) -> None:
    one, two, mean = [
        await probabilities(wire, name, "the c") for name in ("lstm-char", "gru-char", "mean")
    ]

    assert mean == pytest.approx(
        [0.75 * p + 0.25 * q for p, q in zip(one, two, strict=True)], rel=1e-4
    )


@pytest.mark.slow
async def test_get_model_describes_it(wire: Wire) -> None:
    model = await wire.model_service.GetModel(models_pb2.GetModelRequest(name="models/mean"))

    described = getattr(model, "model", model)
    assert described.family == models_pb2.MODEL_FAMILY_MIXTURE
    assert described.mixture.kind == models_pb2.MIXTURE_KIND_LINEAR
    assert list(described.mixture.models) == list(LOADED)
    assert list(described.mixture.weights) == [0.75, 0.25]
    assert described.numerics.is_batch_invariant
    assert described.state_size_bytes > 0
    assert len(described.digest) == 64


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
async def test_a_mixture_scores_what_it_streams_in_any_batch(wire: Wire, name: str) -> None:
    request = gen.GenerateRequest(
        model=f"models/{name}",
        context=context_pb2.Context(text="ab"),
        sampling=sampling_pb2.SamplingParams(
            seed=3, biases=[sampling_pb2.TokenBias(token_id=0, bias=-100)]
        ),
        stopping=sampling_pb2.StoppingParams(max_new_tokens=60),
    )
    alone = await wire.stream(request)

    accompanied, *_ = await asyncio.gather(*(wire.stream(request) for _ in range(5)))
    item = scoring_pb2.ScoreItem(
        context=request.context,
        token_ids=context_pb2.TokenIds(ids=[int(each) for each in column(alone, "token_ids")]),
    )
    scored = await wire.scoring.Score(
        scoring_pb2.ScoreRequest(model=request.model, items=[item], returns={"logprobs": True})
    )

    assert column(accompanied, "token_ids") == column(alone, "token_ids")
    assert column(accompanied, "logprobs") == column(alone, "logprobs")
    assert list(scored.scores[0].tokens.logprobs) == column(alone, "logprobs")


@pytest.mark.slow
async def test_a_mixture_fills_gaps_and_obeys_constraints(wire: Wire) -> None:
    filled = await wire.inference.FillGap(
        inference_pb2.FillGapRequest(
            model="models/learning", right="at", gap_length=1, max_fillings=1000
        )
    )
    constrained = await wire.generation.Generate(
        gen.GenerateRequest(
            model="models/learning", constraint=sampling_pb2.Constraint(regex="[ab]{5}")
        )
    )

    assert fsum(filling.posterior for filling in filled.fillings) == pytest.approx(1)
    assert set(constrained.outputs[0].text) <= set("ab")


def test_a_mixture_is_read_from_one_argument() -> None:
    assert named_mixtures(["both=online:a@0.5, models/b@2"], {"models/a", "models/b"}) == {
        "models/both": MixtureConfig(
            kind="online", members=("models/a", "models/b"), weights=(0.5, 2.0)
        )
    }


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("both", "not of the form"),
        ("both=linear", "not of the form"),
        ("both=mean:a,b", "linear, log_linear, online"),
        ("both=linear:a,c", "names models/c, which is not loaded"),
        ("both=linear:a@x,b", "MODEL@WEIGHT"),
        ("both=linear:a,,b", "MODEL@WEIGHT"),
        ("a=linear:a,b", "Two models would be served as models/a"),
        ("no good=linear:a,b", "cannot name a model"),
    ],
)
def test_an_argument_that_names_no_mixture_says_why(argument: str, words: str) -> None:
    with pytest.raises(ServeError, match=words):
        named_mixtures([argument], {"models/a", "models/b"})


def test_invalid_weights_are_reported_with_the_name_of_the_mixture() -> None:
    mixture = MixtureConfig(kind="linear", members=LOADED, weights=(1.0, 0.0))
    config = ServeConfig(checkpoints={}, max_batch_size=1, mixtures={"models/x": mixture})

    with pytest.raises(
        ServeError, match=r"models/x cannot be served: .*; it must be above 0 and at most 100"
    ):
        mixtures_of(load(("lstm", "char"), ("gru", "char")), config)
