"""Generation requests to jobs, and their results to messages."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from charlm.v1 import generation_pb2 as pb
from charlm_server.engine.generation import Delta, Finish, FinishReason
from charlm_server.engine.resume import ResumePosition
from charlm_server.engine.sequence import GenerationJob
from charlm_server.engine.token_columns import Returns, TokenColumns, concat_columns
from charlm_server.models.registry import LoadedModel
from charlm_server.rpc.convert.constraint import CompiledConstraint, check_fits
from charlm_server.rpc.convert.context import ContextResolver, Prefix
from charlm_server.rpc.convert.distribution import distributions_of, top_tokens_from
from charlm_server.rpc.convert.fields import (
    TextReader,
    check_count,
    check_states_fit,
    duration_from,
    returns_from,
)
from charlm_server.rpc.convert.resume import (
    check_something_is_left,
    origin_of,
    resumed_from,
    seed_of,
)
from charlm_server.rpc.convert.sampling import (
    sampling_params_from,
    seed_from,
    stopping_from,
    time_limit_from,
)
from charlm_server.state_store import OwnedStates

FINISH_REASONS = {
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.STOP: pb.FINISH_REASON_STOP_SEQUENCE,
    FinishReason.END_OF_TEXT: pb.FINISH_REASON_END_OF_TEXT,
    FinishReason.CONSTRAINT_COMPLETE: pb.FINISH_REASON_CONSTRAINT_COMPLETE,
    FinishReason.TIME_LIMIT: pb.FINISH_REASON_TIME_LIMIT,
    FinishReason.DRAINED: pb.FINISH_REASON_DRAINED,
}


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Options of a stream beside its text."""

    max_chunk_tokens: int | None = None
    positions: list[tuple[ResumePosition, list[int]]] = field(default_factory=list)  # to go on from


def generation_job_from(
    request: pb.GenerateRequest,
    model: LoadedModel,
    *,
    states: OwnedStates,
    deadline: float,
    constraint: CompiledConstraint | None = None,
    streaming: StreamOptions | None = None,
) -> GenerationJob:
    """The job that a request asks for. Raises InvalidRequest or NotOffered."""
    limits, streaming = model.limits, streaming or StreamOptions()
    num_outputs = request.num_outputs if request.HasField("num_outputs") else 1
    check_count("num_outputs", num_outputs, 1, limits.max_outputs)
    if request.return_state:
        check_states_fit(num_outputs, model.state_size_bytes, limits)
    returns = returns_from(request.returns, model.limits, model.vocab_size)
    sampling = request.sampling
    seed = seed_from(sampling, seed_of(streaming.positions))
    prefix = _prefix(request, model, states)
    origin = origin_of(request, model, seed, prefix.snapshot)
    resumed = resumed_from(streaming.positions, origin, model)
    check_something_is_left(resumed, num_outputs)
    automaton, search = (constraint.constraint, constraint.search) if constraint else (None, None)
    job = GenerationJob(
        prompt_ids=prefix.ids,
        snapshot=prefix.snapshot,
        params=sampling_params_from(sampling, model.vocab_size, limits),
        seed=seed,
        stopping=stopping_from(request.stopping, limits, automaton, search),
        returns=returns,
        num_outputs=num_outputs,
        bytes_per_token=returns.bytes_per_token(model.vocab_size),
        returns_states=request.return_state,
        max_chunk_tokens=streaming.max_chunk_tokens,
        output=model.output_buffer(),
        deadline=deadline,
        time_limit=time_limit_from(request.stopping, model.scheduler.now()),
        resumed=resumed,
        origin=origin,
    )
    if job.stopping.search is not None:
        check_fits(job)
    return job


def _prefix(request: pb.GenerateRequest, model: LoadedModel, states: OwnedStates) -> Prefix:
    reader = TextReader(model.vocabulary, request.unknown_characters)
    appended_ids = reader.text_ids(request.append_text, "append_text")
    return ContextResolver(reader, model, states).prefix(request.context, "context", appended_ids)


def chunk_from(deltas: list[Delta], returns: Returns) -> pb.OutputChunk:
    """Deltas of one output, in order, as one chunk."""
    finish = deltas[-1].finish
    return pb.OutputChunk(
        index=deltas[0].index,
        text="".join(delta.text for delta in deltas),
        data=b"".join(delta.data for delta in deltas),
        tokens=_series_from(deltas, returns),
        end=None if finish is None else _end_from(finish),
    )


def chunks_from(deltas: Iterable[Delta], returns: Returns) -> list[pb.OutputChunk]:
    """One chunk for each output that has something new."""
    by_index: dict[int, list[Delta]] = {}
    for delta in deltas:
        by_index.setdefault(delta.index, []).append(delta)
    return [chunk_from(by_index[index], returns) for index in sorted(by_index)]


def output_from(chunk: pb.OutputChunk) -> pb.Output:
    """A chunk that holds a whole output."""
    return pb.Output(
        index=chunk.index, text=chunk.text, data=chunk.data, tokens=chunk.tokens, end=chunk.end
    )


def _series_from(deltas: list[Delta], returns: Returns) -> pb.TokenSeries:
    filled = [delta.columns for delta in deltas if len(delta.columns)]
    position = next((delta.position for delta in deltas if len(delta.columns)), deltas[0].position)
    if not filled:
        return pb.TokenSeries(first_position=position)
    columns = concat_columns(filled)
    return pb.TokenSeries(
        first_position=position,
        token_ids=columns.ids_T.tolist(),
        logprobs=columns.logprobs_T.tolist() if returns.logprobs else None,
        sampling_logprobs=_sampling_logprobs(columns) if returns.logprobs else None,
        constraint_log_masses=_log_masses(columns) if returns.logprobs else None,
        ranks=None if columns.ranks_T is None else columns.ranks_T.tolist(),
        entropies=None if columns.entropies_T is None else columns.entropies_T.tolist(),
        top_tokens=top_tokens_from(columns),
        distributions=distributions_of(columns, returns),
    )


def _sampling_logprobs(columns: TokenColumns) -> list[float]:
    assert columns.sampling_logprobs_T is not None
    values: list[float] = columns.sampling_logprobs_T.tolist()
    return values


def _log_masses(columns: TokenColumns) -> list[float] | None:
    masses_T = columns.constraint_log_masses_T
    return None if masses_T is None else masses_T.tolist()


def _end_from(finish: Finish) -> pb.OutputEnd:
    return pb.OutputEnd(
        finish_reason=FINISH_REASONS[finish.reason],
        matched_stop_sequence=(finish.matched_stop or b"").decode(),
        num_new_tokens=finish.num_new_tokens,
        total_logprob=finish.total_logprob,
        log_evidence=finish.log_evidence,
        effective_sample_size=finish.effective_sample_size,
    )


def timings_from(finish: Finish) -> pb.Timings:
    return pb.Timings(
        queued=duration_from(finish.queued_s),
        prefill=duration_from(finish.prefill_s),
        decode=duration_from(finish.decode_s),
    )
