"""A server without a model: it continues every prompt with the alphabet, at p = 1/2 a character.

Every call is recorded, and errors can be scripted.
"""

import asyncio
import math
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from fake_codec import FakeCodec
from fake_inference import FakeInference
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from charlm.v1 import (
    codec_pb2_grpc,
    distribution_pb2,
    generation_pb2,
    generation_pb2_grpc,
    inference_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    scoring_pb2,
    scoring_pb2_grpc,
    tokenizer_pb2,
    tokenizer_pb2_grpc,
)

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
LOGPROB = math.log(0.5)
VOCABULARY = [b"", *(character.encode() for character in ALPHABET), "é".encode()]


@dataclass
class Failure:
    """An error to answer with: status, reason and details."""

    code: grpc.StatusCode
    message: str = "scripted"
    reason: str = ""
    field: str = ""
    retry_after_s: float = 0.0

    async def abort(self, context: Any) -> None:
        details: list[Message] = []
        if self.reason:
            details.append(error_details_pb2.ErrorInfo(reason=self.reason, domain="charlm"))
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field)
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after_s:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromNanoseconds(int(self.retry_after_s * 1e9))
            details.append(retry)
        packed = [any_pb2.Any() for _ in details]
        for box, detail in zip(packed, details, strict=True):
            box.Pack(detail)
        code = code_pb2.Code.Value(self.code.name)
        status = status_pb2.Status(code=code, message=self.message, details=packed)
        await context.abort_with_status(rpc_status.to_status(status))


@dataclass
class Script:
    """What the fake is told to do, and what it saw."""

    failures: deque[Failure] = field(default_factory=deque)
    requests: list[Message] = field(default_factory=list)
    deadlines: list[float | None] = field(default_factory=list)
    model_names: list[str] = field(default_factory=lambda: ["models/alphabet"])
    hangs: bool = False
    stream_ended: asyncio.Event = field(default_factory=asyncio.Event)
    is_serving: bool = True
    breaks: deque[int] = field(default_factory=deque)
    """After how many characters the next streams break off, each once."""
    drains: bool = False
    """Whether they break off as those of a stopping server do."""
    is_behind_proxy: bool = False
    """Whether a proxy tells of the break, in words of its own."""

    async def see(self, request: Message, context: Any) -> None:
        self.requests.append(request)
        self.deadlines.append(context.time_remaining())
        if self.failures:
            await self.failures.popleft().abort(context)


def continuation(request: generation_pb2.GenerateRequest) -> str:
    count = request.stopping.max_new_tokens or 5
    return (ALPHABET * (count // len(ALPHABET) + 1))[:count]


def series(text: str, first: int = 0) -> generation_pb2.TokenSeries:
    return generation_pb2.TokenSeries(
        first_position=first,
        token_ids=[1 + ALPHABET.index(character) for character in text],
        logprobs=[LOGPROB] * len(text),
    )


def ending(text: str) -> generation_pb2.OutputEnd:
    return generation_pb2.OutputEnd(
        finish_reason=generation_pb2.FINISH_REASON_LENGTH,
        num_new_tokens=len(text),
        total_logprob=LOGPROB * len(text),
    )


class FakeGeneration(generation_pb2_grpc.GenerationServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def Generate(self, request: Any, context: Any) -> generation_pb2.GenerateResponse:
        await self.script.see(request, context)
        text = continuation(request)
        outputs = [
            generation_pb2.Output(
                index=index,
                text=text,
                data=text.encode(),
                tokens=series(text),
                end=ending(text),
            )
            for index in range(request.num_outputs or 1)
        ]
        return generation_pb2.GenerateResponse(
            outputs=outputs, seed=request.sampling.seed or 7, model=request.model
        )

    async def StreamGenerate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        context.add_done_callback(lambda _: self.script.stream_ended.set())
        await self.script.see(request, context)
        generate = request.generate
        text = continuation(generate)
        yield generation_pb2.StreamGenerateResponse(
            header=generation_pb2.StreamHeader(model=generate.model, seed=7)
        )
        left = self.script.breaks.popleft() if self.script.breaks else None
        for chunk in remaining_chunks(text, generate.num_outputs or 1, request.resume):
            if left == 0:
                if self.script.drains:
                    chunk.end.finish_reason = generation_pb2.FINISH_REASON_DRAINED
                    chunk.resume_token = b""
                    yield generation_pb2.StreamGenerateResponse(chunks=[chunk])
                    return
                if self.script.is_behind_proxy:
                    await context.abort(grpc.StatusCode.INTERNAL, "Received RST_STREAM")
                await Failure(grpc.StatusCode.UNAVAILABLE).abort(context)
            left = None if left is None else left - 1
            yield generation_pb2.StreamGenerateResponse(chunks=[chunk])
            if self.script.hangs:
                await asyncio.Event().wait()


def remaining_chunks(
    text: str, num_outputs: int, resume: Iterable[generation_pb2.ResumePoint]
) -> Iterator[generation_pb2.OutputChunk]:
    """A character each; a token says which output it is of, and how much of that came before."""
    known = dict(tuple(point.resume_token) for point in resume)
    for point in resume:
        _, num_known = point.resume_token
        assert num_known == len(text) or len(point.received.ids) == num_known
    for index in range(num_outputs):
        for position in range(known.get(index, 0), len(text)):
            character, is_last = text[position], position == len(text) - 1
            yield generation_pb2.OutputChunk(
                index=index,
                text=character,
                data=character.encode(),
                tokens=series(character, position),
                end=ending(text) if is_last else None,
                resume_token=bytes([index, position + 1]),
            )


class FakeScoring(scoring_pb2_grpc.ScoringServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def Score(self, request: Any, context: Any) -> scoring_pb2.ScoreResponse:
        await self.script.see(request, context)
        scores = [self._score(item.text) for item in request.items]
        for score in scores:
            if request.returns.top_k:
                score.tokens.top_tokens.CopyFrom(_top(score.num_tokens, request.returns.top_k))
            if request.returns.distributions:
                score.tokens.distributions.CopyFrom(_uniform(score.num_tokens))
        return scoring_pb2.ScoreResponse(scores=scores, model_digest="d1")

    async def StreamScore(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """Every byte is a token; each piece is answered at once."""
        data, wants_tokens = b"", False
        async for request in requests:
            await self.script.see(request, context)
            wants_tokens |= request.start.returns.logprobs
            tokens = self._score(" " * len(request.data)).tokens
            tokens.first_position = len(data)
            tokens.character_offsets[:] = range(len(data), len(data) + len(request.data))
            data += request.data
            if request.data and wants_tokens:
                yield scoring_pb2.StreamScoreResponse(tokens=tokens)
        total = self._score(data.decode())
        total.ClearField("tokens")
        yield scoring_pb2.StreamScoreResponse(total=total, model_digest="d1")

    async def Compare(self, request: Any, context: Any) -> scoring_pb2.CompareResponse:
        """The last model is thrice as probable as all the others together."""
        await self.script.see(request, context)
        num_others = len(request.models) - 1
        comparison = scoring_pb2.Comparison(
            total_logprobs=[-3.0] * num_others + [-2.0],
            bits_per_byte=[3.0] * num_others + [2.0],
            posteriors=[0.25 / num_others] * num_others + [0.75],
        )
        return scoring_pb2.CompareResponse(
            comparisons=[comparison] * len(request.texts), model_digests=["d"] * (num_others + 1)
        )

    def _score(self, text: str) -> scoring_pb2.Score:
        count = len(text)
        return scoring_pb2.Score(
            total_logprob=LOGPROB * count,
            num_tokens=count,
            num_characters=count,
            num_bytes=len(text.encode()),
            bits_per_character=1.0,
            bits_per_byte=1.0,
            tokens=scoring_pb2.ScoredTokens(
                token_ids=[1] * count,
                character_offsets=range(count),
                logprobs=[LOGPROB] * count,
                ranks=[1] * count,
                entropies=[0.5] * count,
            ),
        )

    async def GetNextDistribution(self, request: Any, context: Any) -> Any:
        await self.script.see(request, context)
        return scoring_pb2.GetNextDistributionResponse(
            entropy=1.0,
            model_digest="d1",
            distribution=_uniform(1),
            top_tokens=_top(1, request.top_k),
        )


def _uniform(num_positions: int) -> distribution_pb2.Distributions:
    size = len(VOCABULARY)
    row = struct.pack(f"<{size}f", *([-math.log(size)] * size))
    return distribution_pb2.Distributions(
        data=row * num_positions, num_positions=num_positions, vocab_size=size
    )


def _top(num_positions: int, k: int) -> distribution_pb2.TopTokens:
    return distribution_pb2.TopTokens(
        k=k, token_ids=[*range(k)] * num_positions, logprobs=[LOGPROB] * k * num_positions
    )


class FakeTokenizer(tokenizer_pb2_grpc.TokenizerServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def Encode(self, request: Any, context: Any) -> tokenizer_pb2.EncodeResponse:
        await self.script.see(request, context)
        encodings = [
            tokenizer_pb2.Encoding(
                token_ids=[1 + ALPHABET.index(character) for character in text],
                character_offsets=range(len(text)),
            )
            for text in request.texts
        ]
        return tokenizer_pb2.EncodeResponse(encodings=encodings)

    async def Decode(self, request: Any, context: Any) -> tokenizer_pb2.DecodeResponse:
        await self.script.see(request, context)
        texts = ["".join(ALPHABET[i - 1] for i in each.ids) for each in request.sequences]
        return tokenizer_pb2.DecodeResponse(texts=texts)

    async def GetVocabulary(self, request: Any, context: Any) -> Any:
        await self.script.see(request, context)
        return tokenizer_pb2.GetVocabularyResponse(tokens=VOCABULARY)


class FakeModels(models_pb2_grpc.ModelServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def ListModels(self, request: Any, context: Any) -> models_pb2.ListModelsResponse:
        """One model a page, so that paging is always at work."""
        await self.script.see(request, context)
        names = self.script.model_names
        page = int(request.page_token or 0)
        return models_pb2.ListModelsResponse(
            models=[self._model(name) for name in names[page : page + 1]],
            next_page_token=str(page + 1) if page + 1 < len(names) else "",
        )

    async def GetModel(self, request: Any, context: Any) -> models_pb2.GetModelResponse:
        await self.script.see(request, context)
        return models_pb2.GetModelResponse(model=self._model(request.name))

    def _model(self, name: str) -> models_pb2.Model:
        evaluation = models_pb2.EvaluationResult(protocol="streamed", bits_per_character=1.0)
        return models_pb2.Model(
            name=name,
            family=models_pb2.MODEL_FAMILY_LSTM,
            vocabulary_kind=tokenizer_pb2.VOCABULARY_KIND_CHAR,
            vocab_size=len(VOCABULARY),
            unit=models_pb2.DOCUMENT_UNIT_STREAM,
            num_parameters=1234,
            training_report=models_pb2.TrainingReport(evaluations=[evaluation]),
        )


class FakeHealth(health_pb2_grpc.HealthServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:
        await self.script.see(request, context)
        kinds = health_pb2.HealthCheckResponse
        return kinds(status=kinds.SERVING if self.script.is_serving else kinds.NOT_SERVING)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        kinds = health_pb2.HealthCheckResponse
        yield kinds(status=kinds.SERVING)
        yield kinds(status=kinds.NOT_SERVING)


@asynccontextmanager
async def serving(script: Script, port: int = 0) -> AsyncIterator[str]:
    """The fake on `port`, or on one of its own; yields its address."""
    server = grpc.aio.server()
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(FakeGeneration(script), server)
    scoring_pb2_grpc.add_ScoringServiceServicer_to_server(FakeScoring(script), server)
    tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(FakeTokenizer(script), server)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(FakeInference(script), server)
    codec_pb2_grpc.add_CodecServiceServicer_to_server(FakeCodec(script), server)
    models_pb2_grpc.add_ModelServiceServicer_to_server(FakeModels(script), server)
    health_pb2_grpc.add_HealthServicer_to_server(FakeHealth(script), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
