"""Gaps and continuations without a model: the alphabet, each letter half as probable."""

import math
from typing import Any

from charlm.v1 import inference_pb2 as pb
from charlm.v1 import inference_pb2_grpc

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


class FakeInference(inference_pb2_grpc.InferenceServiceServicer):
    def __init__(self, script: Any) -> None:
        self.script = script

    async def FillGap(self, request: Any, context: Any) -> pb.FillGapResponse:
        await self.script.see(request, context)
        is_exact = request.gap_length <= 2
        return pb.FillGapResponse(
            fillings=[
                pb.Filling(
                    text=letter * request.gap_length,
                    token_ids=[index + 1] * request.gap_length,
                    posterior=0.5 ** (index + 1),
                    total_logprob=-index - 1,
                )
                for index, letter in enumerate(ALPHABET[: request.max_fillings or 10])
            ],
            is_exact=is_exact,
            log_evidence=-1.5,
            effective_sample_size=None if is_exact else 3.5,
            seed=request.seed,
        )

    async def ListTopContinuations(
        self, request: Any, context: Any
    ) -> pb.ListTopContinuationsResponse:
        await self.script.see(request, context)
        return pb.ListTopContinuationsResponse(
            continuations=[
                pb.Continuation(
                    text=ALPHABET[index] * request.length,
                    token_ids=[index + 1] * request.length,
                    total_logprob=math.log(0.5) * (index + 1),
                )
                for index in range(request.num_continuations)
            ],
            is_complete=request.max_steps != 1,
            missing_logprob_bound=-7.0,
            num_steps=5,
        )
