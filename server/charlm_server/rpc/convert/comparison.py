"""Comparisons: a request to one scoring job for each model, and their scores to messages."""

from collections.abc import Sequence
from math import isfinite

from charlm.v1 import distribution_pb2
from charlm.v1 import scoring_pb2 as pb
from charlm_model.scoring import posteriors
from charlm_model.text.vocabulary import END_OF_TEXT_ID
from charlm_server.engine.scoring import ScoringItem, ScoringJob
from charlm_server.engine.token_columns import Returns
from charlm_server.errors.base import Described, InvalidRequest, InvalidText
from charlm_server.models.registry import LoadedModel, Models, check_named
from charlm_server.rpc.convert.fields import TextReader, check_count

TOTALS = Returns(logprobs=False)
Rows = Sequence[Sequence[pb.Score]]  # a row for each model, an entry for each text


def compared_models(request: pb.CompareRequest, models: Models) -> list[LoadedModel]:
    """The models that a request names. Raises InvalidRequest or ModelNotFound."""
    if not request.models:
        raise InvalidRequest("models", [], "a list of at least one model")
    earlier: set[str] = set()
    for index, name in enumerate(request.models):
        check_named(name, f"models[{index}]")
        if name in earlier:
            raise InvalidRequest(f"models[{index}]", name, "a model that is not in the list yet")
        earlier.add(name)
    found = [models.get(name) for name in request.models]
    priors_from(request)
    return found


def priors_from(request: pb.CompareRequest) -> list[float]:
    """The prior of each model; uniform unless given. Raises InvalidRequest."""
    if not request.priors:
        return [1.0] * len(request.models)
    if len(request.priors) != len(request.models):
        allowed = f"empty, or a list of {len(request.models)}, one for each model"
        raise InvalidRequest("priors", Described(f"a list of {len(request.priors)}"), allowed)
    for index, prior in enumerate(request.priors):
        if not (isfinite(prior) and prior > 0):
            allowed = "positive and finite; to exclude a model, leave it out"
            raise InvalidRequest(f"priors[{index}]", prior, allowed)
    return list(request.priors)


def comparing_job_from(
    request: pb.CompareRequest, model: LoadedModel, *, deadline: float
) -> ScoringJob:
    """All texts under one of the models. Raises InvalidRequest."""
    limits = model.limits
    check_count("texts", len(request.texts), 1, limits.max_score_items)
    reader = TextReader(model.vocabulary, request.unknown_characters)
    job = ScoringJob(
        items=[
            _item_from(text, reader, f"texts[{index}]", model.name)
            for index, text in enumerate(request.texts)
        ],
        returns=TOTALS,
        bytes_per_token=TOTALS.bytes_per_token(model.vocab_size),
        output=model.output_buffer(),
        deadline=deadline,
    )
    check_count("texts (tokens in all)", job.num_tokens, 1, limits.max_score_tokens)
    return job


def _item_from(text: str, reader: TextReader, field: str, model: str) -> ScoringItem:
    if not text:
        raise InvalidRequest(field, text, "at least one character long")
    try:
        ids = reader.text_ids(text, field)
    except InvalidText as error:
        error.args = (f"{error} The model is {model}.",)  # the other models may have the character
        raise
    return ScoringItem(
        context_ids=[END_OF_TEXT_ID], continuation_ids=ids, num_text_bytes=len(text.encode())
    )


def compare_response_from(
    request: pb.CompareRequest, models: Sequence[LoadedModel], rows: Rows
) -> pb.CompareResponse:
    priors = priors_from(request)
    return pb.CompareResponse(
        comparisons=[_comparison(scores, priors) for scores in zip(*rows, strict=True)],
        model_digests=[model.checkpoint.digest for model in models],
        numerics=distribution_pb2.Numerics(
            id=" and ".join(sorted({model.numerics for model in models})),
            is_batch_invariant=all(model.batch_invariance.is_batch_invariant for model in models),
        ),
    )


def _comparison(scores: Sequence[pb.Score], priors: Sequence[float]) -> pb.Comparison:
    total_logprobs = [score.total_logprob for score in scores]
    return pb.Comparison(
        total_logprobs=total_logprobs,
        bits_per_byte=[score.bits_per_byte for score in scores],
        posteriors=posteriors(total_logprobs, priors),
    )
