"""ScoringService: convert, call, convert."""

from __future__ import annotations  # gRPC's context is generic for type checkers only

from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc

from charlm.v1 import scoring_pb2 as pb
from charlm.v1 import scoring_pb2_grpc as pb_grpc
from charlm_server.calls.call import Call
from charlm_server.engine.scoring import ScoringJob
from charlm_server.models.registry import LoadedModel, Models
from charlm_server.rpc.call_context import call_of
from charlm_server.rpc.call_helpers import checked_size, convert_off_loop, deadline_of, gather_all
from charlm_server.rpc.convert.comparison import (
    compare_response_from,
    compared_models,
    comparing_job_from,
)
from charlm_server.rpc.convert.context import requested_model
from charlm_server.rpc.convert.long_text import first_of, pieces_of, scorer_from
from charlm_server.rpc.convert.models import numerics_from
from charlm_server.rpc.convert.returned_states import add_score_states
from charlm_server.rpc.convert.scoring import (
    TOO_LARGE,
    ScoreBuilder,
    next_job_from,
    next_response_from,
    scoring_job_from,
)
from charlm_server.state_store import StateStore
from charlm_server.tasks.search_series import SearchSeries

FEWER_TEXTS = "compare fewer texts or models a call"


class ScoringService(pb_grpc.ScoringServiceServicer):
    def __init__(self, models: Models, states: StateStore) -> None:
        self._models, self._states = models, states

    async def Score(
        self,
        request: pb.ScoreRequest,
        context: grpc.aio.ServicerContext[pb.ScoreRequest, pb.ScoreResponse],
    ) -> pb.ScoreResponse:
        contexts = [item.context for item in request.items]
        call = call_of(context)
        states = self._states.of(call.caller)
        model = call.use(requested_model(self._models, states, request.model, contexts))
        deadline = deadline_of(context, model)
        job = await convert_off_loop(
            request, scoring_job_from, request, model, states=states, deadline=deadline
        )
        scores = await _scores(request, job, model, call)
        await add_score_states(scores, job, model.provenance)
        response = pb.ScoreResponse(
            scores=scores,
            model_digest=model.checkpoint.digest,
            numerics=numerics_from(model),
        )
        return checked_size(response, model.limits.max_response_message_bytes, TOO_LARGE)

    async def GetNextDistribution(
        self,
        request: pb.GetNextDistributionRequest,
        context: grpc.aio.ServicerContext[
            pb.GetNextDistributionRequest, pb.GetNextDistributionResponse
        ],
    ) -> pb.GetNextDistributionResponse:
        call = call_of(context)
        states = self._states.of(call.caller)
        model = call.use(requested_model(self._models, states, request.model, [request.context]))
        deadline = deadline_of(context, model)
        job = await convert_off_loop(
            request, next_job_from, request, model, states=states, deadline=deadline
        )
        async with model.scheduler.run(job, call):
            [part] = await job.output.take(1)
        return next_response_from(request, part.logprobs_V, model)

    async def StreamScore(
        self,
        request_iterator: AsyncIterator[pb.StreamScoreRequest],
        context: grpc.aio.ServicerContext[pb.StreamScoreRequest, pb.StreamScoreResponse],
    ) -> AsyncIterator[pb.StreamScoreResponse]:
        first = await first_of(request_iterator)
        start = first.start
        call = call_of(context)
        states = self._states.of(call.caller)
        model = call.use(
            requested_model(self._models, states, start.model, [start.context], field="start.model")
        )
        deadline = deadline_of(context, model)
        series = SearchSeries(model, deadline, call)
        scorer, encode, builder = await convert_off_loop(
            first, scorer_from, first.start, series, states=states
        )
        async with aclosing(scorer.run(pieces_of(first, request_iterator), encode)) as blocks:
            async for block in blocks:
                if response := builder.response(block):
                    yield response
        yield builder.last_response()

    async def Compare(
        self,
        request: pb.CompareRequest,
        context: grpc.aio.ServicerContext[pb.CompareRequest, pb.CompareResponse],
    ) -> pb.CompareResponse:
        call = call_of(context)
        models = [call.use(each) for each in compared_models(request, self._models)]

        async def row(model: LoadedModel) -> list[pb.Score]:
            deadline = deadline_of(context, model)
            job = await convert_off_loop(
                request, comparing_job_from, request, model, deadline=deadline
            )
            return await _scores(request, job, model, call)

        response = compare_response_from(request, models, await gather_all(map(row, models)))
        return checked_size(response, models[0].limits.max_response_message_bytes, FEWER_TEXTS)


async def _scores(
    request: pb.ScoreRequest | pb.CompareRequest, job: ScoringJob, model: LoadedModel, call: Call
) -> list[pb.Score]:
    """Run a job and convert its results to messages."""
    builder = ScoreBuilder(job, model)
    async with model.scheduler.run(job, call):
        async for parts in job.output.batches(model.limits.max_response_message_bytes):
            builder.add(parts)
    return await convert_off_loop(request, builder.scores)
