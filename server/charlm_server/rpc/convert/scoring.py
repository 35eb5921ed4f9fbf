"""Scoring requests to jobs, and their results to messages."""

from collections.abc import Iterable

from charlm.v1 import distribution_pb2
from charlm.v1 import scoring_pb2 as pb
from charlm_model.scoring import entropies
from charlm_model.text.vocabulary import END_OF_TEXT_ID
from charlm_server.engine.detokenizer import CharacterCounter
from charlm_server.engine.scoring import NextDistributionJob, ScorePart, ScoringItem, ScoringJob
from charlm_server.engine.token_columns import (
    NO_TOKENS,
    Float64s,
    TokenColumns,
    alternatives,
    concat_columns,
    exact_sum,
)
from charlm_server.errors.base import AnswerTooLarge, InvalidRequest
from charlm_server.models.registry import LoadedModel
from charlm_server.rpc.convert.context import ContextResolver
from charlm_server.rpc.convert.distribution import distributions_from, top_tokens_from
from charlm_server.rpc.convert.fields import (
    TextReader,
    check_count,
    check_data_type,
    check_states_fit,
    check_top_k,
    returns_from,
)
from charlm_server.rpc.convert.models import numerics_from
from charlm_server.rpc.convert.scores import score_from, tokens_from, wants_tokens
from charlm_server.state_store import OwnedStates

TOO_LARGE = "ask for less per token, score fewer or shorter texts a call, or use StreamScore"


def scoring_job_from(
    request: pb.ScoreRequest, model: LoadedModel, *, states: OwnedStates, deadline: float
) -> ScoringJob:
    """The job that a request asks for. Raises InvalidRequest, NotOffered or AnswerTooLarge."""
    limits = model.limits
    check_count("items", len(request.items), 1, limits.max_score_items)
    reader = TextReader(model.vocabulary, request.unknown_characters)
    resolver = ContextResolver(reader, model, states)
    returns = returns_from(request.returns, model.limits, model.vocab_size)
    job = ScoringJob(
        items=[
            _item_from(item, reader, resolver, f"items[{i}]")
            for i, item in enumerate(request.items)
        ],
        returns=returns,
        bytes_per_token=returns.bytes_per_token(model.vocab_size),
        output=model.output_buffer(),
        deadline=deadline,
    )
    check_count("items (tokens in all)", job.num_tokens, 1, limits.max_score_tokens)
    _check_answer_fits(job, model)
    if num_states := sum(item.return_state for item in request.items):
        check_states_fit(num_states, model.state_size_bytes, limits)
    return job


def _check_answer_fits(job: ScoringJob, model: LoadedModel) -> None:
    """Refuse, before scoring, a response too large even at the least bytes per token."""
    returns = job.returns
    if not wants_tokens(returns):
        return
    least = returns.least_bytes_per_token(model.vocab_size) + 1  # its offset
    limit = model.limits.max_response_message_bytes
    if least * sum(len(item.continuation_ids) for item in job.items) > limit:
        raise AnswerTooLarge(limit, TOO_LARGE)


def _item_from(
    item: pb.ScoreItem, reader: TextReader, resolver: ContextResolver, field: str
) -> ScoringItem:
    prefix = resolver.prefix(item.context, f"{field}.context")
    continuation_ids = _continuation_ids(item, reader, field)
    if not continuation_ids:
        raise InvalidRequest(f"{field}.continuation", "", "at least one token, or end_of_text")
    return ScoringItem(
        context_ids=prefix.ids,
        continuation_ids=continuation_ids,
        snapshot=prefix.snapshot,
        returns_state=item.return_state,
        num_text_bytes=_num_text_bytes(item),
    )


def _num_text_bytes(item: pb.ScoreItem) -> int | None:
    kind = item.WhichOneof("continuation")
    if kind == "text":
        return len(item.text.encode())
    return len(item.data) if kind == "data" else None


def _continuation_ids(item: pb.ScoreItem, reader: TextReader, field: str) -> list[int]:
    ids = reader.ids(item, item.WhichOneof("continuation"), f"{field}.")
    return [*ids, END_OF_TEXT_ID] if item.end_of_text else ids


def next_job_from(
    request: pb.GetNextDistributionRequest,
    model: LoadedModel,
    *,
    states: OwnedStates,
    deadline: float,
) -> NextDistributionJob:
    check_data_type(request.data_type, "data_type")
    check_top_k("top_k", request.top_k, model.limits, "distribution")
    reader = TextReader(model.vocabulary, request.unknown_characters)
    prefix = ContextResolver(reader, model, states).prefix(request.context, "context")
    return NextDistributionJob(
        context_ids=prefix.ids,
        snapshot=prefix.snapshot,
        output=model.output_buffer(),
        deadline=deadline,
    )


class ScoreBuilder:
    """Collects the parts of a job's items, which arrive interleaved, and builds messages."""

    def __init__(self, job: ScoringJob, model: LoadedModel) -> None:
        self._job, self._token_bytes = job, model.token_bytes
        self._parts: list[list[ScorePart]] = [[] for _ in job.items]

    def add(self, parts: Iterable[ScorePart]) -> None:
        for part in parts:
            self._parts[part.item].append(part)

    def scores(self) -> list[pb.Score]:
        return list(map(self._score, self._job.items, self._parts))

    def _score(self, item: ScoringItem, parts: list[ScorePart]) -> pb.Score:
        columns = concat_columns([part.columns for part in parts])
        tokens = [self._token_bytes[token] for token in columns.ids_T.tolist()]
        counter = CharacterCounter()
        offsets, num_characters = counter.feed(tokens), counter.finish()
        sent = item.num_text_bytes
        num_bytes = sum(map(len, tokens)) if sent is None else sent
        return score_from(
            total_logprob=exact_sum([columns.logprobs_T]),
            num_tokens=len(columns),
            num_characters=num_characters,
            num_bytes=num_bytes,
            is_greedy=all(part.is_greedy for part in parts),
            tokens=tokens_from(columns, offsets, self._job.returns),
        )


def next_response_from(
    request: pb.GetNextDistributionRequest, logprobs_V: Float64s, model: LoadedModel
) -> pb.GetNextDistributionResponse:
    logprobs_1V = logprobs_V[None]
    is_float64 = request.data_type == distribution_pb2.DATA_TYPE_FLOAT64
    columns = TokenColumns(
        ids_T=NO_TOKENS.ids_T,
        logprobs_T=NO_TOKENS.logprobs_T,
        **alternatives(logprobs_1V, min(request.top_k, model.vocab_size)),
    )
    return pb.GetNextDistributionResponse(
        distribution=distributions_from(logprobs_1V, is_float64=is_float64),
        top_tokens=top_tokens_from(columns),
        entropy=float(entropies(logprobs_1V)[0, 0]),
        model_digest=model.checkpoint.digest,
        numerics=numerics_from(model),
    )
