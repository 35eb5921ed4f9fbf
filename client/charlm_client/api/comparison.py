"""Comparing texts under several models: values, and their conversion to and from messages."""

from collections.abc import Sequence
from dataclasses import dataclass

from charlm.v1 import scoring_pb2
from charlm_client.errors import InvalidRequest
from charlm_client.wire.to_proto import checked, model_name, naming_field, unknown_policy


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelScore:
    """One text under one model."""

    model: str
    model_digest: str
    total_logprob: float
    """In nats; bit for bit the one of `score`."""
    bits_per_byte: float
    """Mean surprisal of a byte; comparable between vocabularies and lengths."""
    posterior: float
    """Probability that the text came from this model, if it came from one of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One text under each model, in the order of the call."""

    text: str
    scores: tuple[ModelScore, ...]

    @property
    def best(self) -> ModelScore:
        """The most probable model; the first of them if several are."""
        return max(self.scores, key=lambda score: score.posterior)


def compare_message(
    texts: Sequence[str],
    *,
    models: Sequence[str],
    priors: Sequence[float] | None,
    replace_unknown: bool,
) -> scoring_pb2.CompareRequest:
    """Raises InvalidRequest for a single string: it would be compared letter by letter."""
    for field, values in (("texts", texts), ("models", models)):
        if isinstance(values, str):
            raise InvalidRequest(f"{field} is one text; it must be a list.", field=field)
    with naming_field("priors", priors, "numbers"):
        return scoring_pb2.CompareRequest(
            models=[model_name(model) for model in models],
            texts=[checked(text, f"texts[{index}]") for index, text in enumerate(texts)],
            priors=priors,
            unknown_characters=unknown_policy(replace_unknown),
        )


def comparisons_from(
    request: scoring_pb2.CompareRequest, response: scoring_pb2.CompareResponse
) -> list[Comparison]:
    return [
        Comparison(text=text, scores=_scores(request, response, row))
        for text, row in zip(request.texts, response.comparisons, strict=True)
    ]


def _scores(
    request: scoring_pb2.CompareRequest,
    response: scoring_pb2.CompareResponse,
    row: scoring_pb2.Comparison,
) -> tuple[ModelScore, ...]:
    numbers = zip(row.total_logprobs, row.bits_per_byte, row.posteriors, strict=True)
    return tuple(
        ModelScore(
            model=name,
            model_digest=digest,
            total_logprob=total_logprob,
            bits_per_byte=bits_per_byte,
            posterior=posterior,
        )
        for name, digest, (total_logprob, bits_per_byte, posterior) in zip(
            request.models, response.model_digests, numbers, strict=True
        )
    )
