"""The asynchronous client: one method for every thing that can be asked."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from grpc_health.v1 import health_pb2, health_pb2_grpc

from charlm.v1 import (
    context_pb2,
    distribution_pb2,
    generation_pb2,
    generation_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    scoring_pb2,
    scoring_pb2_grpc,
    tokenizer_pb2,
    tokenizer_pb2_grpc,
)
from charlm_client.channel import open_channel
from charlm_client.conversion import (
    distribution_from,
    generation_from,
    model_from,
    model_name,
    sampling_message,
    score_from,
    stopping_message,
)
from charlm_client.errors import InvalidRequest, ModelNotFound
from charlm_client.stream import GenerationStream
from charlm_client.translation import translated
from charlm_client.types import (
    Encoding,
    Generation,
    Model,
    NextDistribution,
    Sampling,
    Score,
    Stopping,
)

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 60.0

Response = TypeVar("Response")


class Client:
    """Asks one server. Every call has a deadline: `timeout_s`, unless a call says otherwise.

    All methods raise from the tree in `errors.py`. A model is named "shakespeare" or
    "models/shakespeare".
    """

    def __init__(
        self, address: str = DEFAULT_ADDRESS, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._channel = open_channel(address)
        self._generation = generation_pb2_grpc.GenerationServiceStub(self._channel)
        self._scoring = scoring_pb2_grpc.ScoringServiceStub(self._channel)
        self._tokenizer = tokenizer_pb2_grpc.TokenizerServiceStub(self._channel)
        self._models = models_pb2_grpc.ModelServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._vocabularies: dict[str, tuple[bytes, ...]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all calls and disconnect."""
        await self._channel.close(grace=None)

    # --- generating ---

    async def generate(
        self,
        prompt: str,
        *,
        model: str,
        sampling: Sampling | None = None,
        stopping: Stopping | None = None,
        num_outputs: int | None = None,
    ) -> Generation:
        """Continue a prompt and return whole outputs."""
        request = _generate_request(prompt, model, sampling, stopping, num_outputs)
        call = self._generation.Generate(request, timeout=self._timeout_s)
        return generation_from(await self._answer(call))

    def stream_generate(
        self,
        prompt: str,
        *,
        model: str,
        sampling: Sampling | None = None,
        stopping: Stopping | None = None,
        num_outputs: int | None = None,
    ) -> GenerationStream:
        """Continue a prompt and return characters as they are sampled."""
        request = generation_pb2.StreamGenerateRequest(
            generate=_generate_request(prompt, model, sampling, stopping, num_outputs)
        )
        call = self._generation.StreamGenerate(request, timeout=self._timeout_s)
        return GenerationStream(call, self.address)

    # --- asking for probabilities ---

    async def score(
        self, texts: Sequence[str], *, model: str, context: str = "", details: bool = False
    ) -> list[Score]:
        """Score each text after the context; `details` adds ranks and entropies."""
        request = scoring_pb2.ScoreRequest(
            model=model_name(model),
            items=[
                scoring_pb2.ScoreItem(context=context_pb2.Context(text=context), text=text)
                for text in texts
            ],
            returns=distribution_pb2.ReturnOptions(logprobs=True, ranks=details, entropies=details),
        )
        response = await self._answer(self._scoring.Score(request, timeout=self._timeout_s))
        return [score_from(score) for score in response.scores]

    async def next_distribution(
        self, prompt: str, *, model: str, top_k: int = 10
    ) -> NextDistribution:
        """The full distribution of the token after a prompt, and the best of it."""
        request = scoring_pb2.GetNextDistributionRequest(
            model=model_name(model), context=context_pb2.Context(text=prompt), top_k=top_k
        )
        call = self._scoring.GetNextDistribution(request, timeout=self._timeout_s)
        response = await self._answer(call)
        return distribution_from(response, await self._vocabulary(model, response.model_digest))

    # --- tokens ---

    async def encode(self, texts: Sequence[str], *, model: str) -> list[Encoding]:
        """The texts' tokens."""
        request = tokenizer_pb2.EncodeRequest(model=model_name(model), texts=texts)
        response = await self._answer(self._tokenizer.Encode(request, timeout=self._timeout_s))
        return [
            Encoding(
                token_ids=tuple(encoding.token_ids),
                character_offsets=tuple(encoding.character_offsets),
            )
            for encoding in response.encodings
        ]

    async def decode(self, sequences: Sequence[Sequence[int]], *, model: str) -> list[str]:
        """The texts of token sequences."""
        request = tokenizer_pb2.DecodeRequest(
            model=model_name(model),
            sequences=[context_pb2.TokenIds(ids=ids) for ids in sequences],
        )
        response = await self._answer(self._tokenizer.Decode(request, timeout=self._timeout_s))
        return list(response.texts)

    async def vocabulary(self, *, model: str) -> tuple[bytes, ...]:
        """The exact bytes of every token, in order of id."""
        request = tokenizer_pb2.GetVocabularyRequest(model=model_name(model))
        call = self._tokenizer.GetVocabulary(request, timeout=self._timeout_s)
        return tuple((await self._answer(call)).tokens)

    async def _vocabulary(self, model: str, digest: str) -> tuple[bytes, ...]:
        if digest not in self._vocabularies:
            self._vocabularies[digest] = await self.vocabulary(model=model)
        return self._vocabularies[digest]

    # --- models and health ---

    async def list_models(self) -> list[Model]:
        """All loaded models, page by page."""
        models: list[Model] = []
        page_token = ""
        while True:
            request = models_pb2.ListModelsRequest(page_token=page_token)
            response = await self._answer(self._models.ListModels(request, timeout=self._timeout_s))
            models += map(model_from, response.models)
            page_token = response.next_page_token
            if not page_token:
                return models

    async def get_model(self, model: str) -> Model:
        """One loaded model."""
        request = models_pb2.GetModelRequest(name=model_name(model))
        response = await self._answer(self._models.GetModel(request, timeout=self._timeout_s))
        return model_from(response.model)

    async def only_model(self) -> str:
        """The name of the only loaded model. Raises InvalidRequest when there are several."""
        names = [model.name for model in await self.list_models()]
        if not names:
            raise ModelNotFound(f"The server at {self.address} has no model loaded.")
        if len(names) > 1:
            raise InvalidRequest(f"Several models are loaded; name one of: {', '.join(names)}.")
        return names[0]

    async def check_health(self, service: str = "") -> bool:
        """Whether the server (or one of its services or models) is serving."""
        request = health_pb2.HealthCheckRequest(service=service)
        response = await self._answer(self._health.Check(request, timeout=self._timeout_s))
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    async def watch_health(self, service: str = "") -> AsyncIterator[bool]:
        """Whether it is serving, now and at every change."""
        with translated(self.address):
            async for response in self._health.Watch(
                health_pb2.HealthCheckRequest(service=service)
            ):
                yield response.status == health_pb2.HealthCheckResponse.SERVING

    async def _answer(self, call: Awaitable[Response]) -> Response:
        with translated(self.address):
            return await call


def _generate_request(
    prompt: str,
    model: str,
    sampling: Sampling | None,
    stopping: Stopping | None,
    num_outputs: int | None,
) -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(
        model=model_name(model),
        context=context_pb2.Context(text=prompt),
        sampling=sampling_message(sampling or Sampling()),
        stopping=stopping_message(stopping or Stopping()),
        num_outputs=num_outputs,
    )
