"""GenerationService: convert, call, convert."""

from __future__ import annotations  # gRPC's context is generic for type checkers only

from collections.abc import AsyncIterator, Iterable, Iterator

import grpc

from charlm.v1 import generation_pb2 as pb
from charlm.v1 import generation_pb2_grpc as pb_grpc
from charlm_server.calls.call import Call
from charlm_server.engine.generation import Delta
from charlm_server.engine.sequence import GenerationJob
from charlm_server.engine.token_columns import Returns
from charlm_server.errors.base import AnswerTooLarge
from charlm_server.models.registry import LoadedModel, Models
from charlm_server.rpc.call_context import call_of
from charlm_server.rpc.call_helpers import checked_size, convert_off_loop, deadline_of
from charlm_server.rpc.convert.constraint import ConstraintCompiler
from charlm_server.rpc.convert.context import requested_model
from charlm_server.rpc.convert.fields import check_count
from charlm_server.rpc.convert.generation import (
    StreamOptions,
    chunks_from,
    generation_job_from,
    output_from,
    timings_from,
)
from charlm_server.rpc.convert.models import numerics_from
from charlm_server.rpc.convert.resume import ResumeTokens, resume_positions_from
from charlm_server.rpc.convert.returned_states import add_end_states
from charlm_server.state_store import OwnedStates, StateStore

MAX_UINT32 = 2**32 - 1
TOO_LARGE = "ask for less per token, fewer tokens or outputs, or use StreamGenerate"


class GenerationService(pb_grpc.GenerationServiceServicer):
    def __init__(self, models: Models, states: StateStore) -> None:
        self._models, self._states = models, states
        self._compiler = ConstraintCompiler()

    def _model(self, request: pb.GenerateRequest, call: Call, states: OwnedStates) -> LoadedModel:
        model = call.use(requested_model(self._models, states, request.model, [request.context]))
        model.scheduler.refuse_if_full()
        return model

    async def Generate(
        self,
        request: pb.GenerateRequest,
        context: grpc.aio.ServicerContext[pb.GenerateRequest, pb.GenerateResponse],
    ) -> pb.GenerateResponse:
        call = call_of(context)
        states = self._states.of(call.caller)
        model = self._model(request, call, states)
        deadline = deadline_of(context, model)
        constraint = await self._compiler.compiled(request, model)
        job = await convert_off_loop(
            request,
            generation_job_from,
            request,
            model,
            states=states,
            deadline=deadline,
            constraint=constraint,
        )
        limit = model.limits.max_response_message_bytes
        deltas: list[Delta] = []
        per_token, num_bytes = least_bytes_per_token(job.returns, model), 0
        async with model.scheduler.run(job, call):
            async for parts in job.output.batches(limit):
                deltas += parts
                num_bytes += sum(
                    2 * len(each.data) + per_token * len(each.columns) for each in parts
                )
                if num_bytes > limit:
                    raise AnswerTooLarge(limit, TOO_LARGE)
        chunks = chunks_from(deltas, job.returns)
        await add_end_states(chunks, job, model.provenance)
        return checked_size(_response_from(deltas, chunks, job, model), limit, TOO_LARGE)

    async def StreamGenerate(
        self,
        request: pb.StreamGenerateRequest,
        context: grpc.aio.ServicerContext[pb.StreamGenerateRequest, pb.StreamGenerateResponse],
    ) -> AsyncIterator[pb.StreamGenerateResponse]:
        call = call_of(context)
        states = self._states.of(call.caller)
        model = self._model(request.generate, call, states)
        max_tokens = max_chunk_tokens_of(request)
        job = await convert_off_loop(
            request,
            generation_job_from,
            request.generate,
            model,
            states=states,
            deadline=deadline_of(context, model),
            constraint=await self._compiler.compiled(request.generate, model),
            streaming=StreamOptions(
                max_tokens, resume_positions_from(request, model.limits.max_outputs)
            ),
        )
        tokens = resume_tokens_for(request, job)
        header: pb.StreamHeader | None = _header_from(job, model)
        async with model.scheduler.run(job, call):
            async for parts in job.output.batches(model.limits.max_response_message_bytes // 2):
                for deltas in messages_of(parts, max_tokens):
                    response = _chunk_response(deltas, job, header, tokens)
                    await add_end_states(response.chunks, job, model.provenance)
                    yield response
                    header = None


def least_bytes_per_token(returns: Returns, model: LoadedModel) -> int:
    """Least bytes of a token beside its text; it has two log-probs, model's and sampler's."""
    return returns.least_bytes_per_token(model.vocab_size) + 4 * returns.logprobs


def max_chunk_tokens_of(request: pb.StreamGenerateRequest) -> int | None:
    if not request.HasField("max_chunk_tokens"):
        return None
    return check_count("max_chunk_tokens", request.max_chunk_tokens, 1, MAX_UINT32)


def resume_tokens_for(request: pb.StreamGenerateRequest, job: GenerationJob) -> ResumeTokens | None:
    if request.HasField("resume_tokens") and not request.resume_tokens:
        return None
    assert job.origin is not None
    return ResumeTokens(job.origin, job)


def messages_of(deltas: Iterable[Delta], max_tokens: int | None) -> Iterator[list[Delta]]:
    """Deltas joined to messages in which no output has more than `max_tokens` tokens."""
    message: list[Delta] = []
    num_tokens: dict[int, int] = {}
    for delta in deltas:
        joined = num_tokens.get(delta.index, 0) + len(delta.columns)
        if message and max_tokens is not None and joined > max_tokens:
            yield message
            message, num_tokens, joined = [], {}, len(delta.columns)
        message.append(delta)
        num_tokens[delta.index] = joined
    yield message


def _header_from(job: GenerationJob, model: LoadedModel) -> pb.StreamHeader:
    return pb.StreamHeader(
        model=model.name,
        model_digest=model.checkpoint.digest,
        numerics=numerics_from(model),
        seed=job.seed,
        num_prompt_tokens=len(job.prompt_text_ids),
    )


def _chunk_response(
    deltas: list[Delta],
    job: GenerationJob,
    header: pb.StreamHeader | None,
    tokens: ResumeTokens | None,
) -> pb.StreamGenerateResponse:
    last = deltas[-1]
    chunks = chunks_from(deltas, job.returns)
    if tokens is not None:
        tokens.add_to(chunks, deltas)
    return pb.StreamGenerateResponse(
        header=header,
        chunks=chunks,
        timings=timings_from(last.finish) if last.finish and last.is_last else None,
    )


def _response_from(
    deltas: list[Delta], chunks: list[pb.OutputChunk], job: GenerationJob, model: LoadedModel
) -> pb.GenerateResponse:
    finish = deltas[-1].finish
    assert finish is not None
    header = _header_from(job, model)
    return pb.GenerateResponse(
        outputs=[output_from(chunk) for chunk in chunks],
        seed=header.seed,
        num_prompt_tokens=header.num_prompt_tokens,
        model=header.model,
        model_digest=header.model_digest,
        numerics=header.numerics,
        timings=timings_from(finish),
    )
