"""The asynchronous client: one method for each call."""

import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import partial
from typing import Any, Self, TypeVar

from grpc_health.v1 import health_pb2

from charlm.v1 import generation_pb2, models_pb2, tokenizer_pb2
from charlm_client.api.admin import Admin
from charlm_client.api.comparison import Comparison, compare_message, comparisons_from
from charlm_client.api.compression import (
    DEFAULT_CODEC_TIMEOUT_S,
    CodecStream,
    Pieces,
    compress_messages,
    decompress_messages,
)
from charlm_client.api.generation_stream import GenerationStream
from charlm_client.api.inference import (
    FilledGap,
    Gap,
    TopContinuations,
    filled_gap_from,
    gap_message,
    top_continuations_from,
    top_message,
)
from charlm_client.api.long_text import DEFAULT_STREAM_TIMEOUT_S, LongText, Returns, ScoreStream
from charlm_client.api.resuming import Resuming
from charlm_client.api.states import States
from charlm_client.errors import InvalidRequest, ModelNotFound
from charlm_client.security import Security
from charlm_client.types import (
    After,
    Details,
    Encoding,
    Generation,
    Model,
    NextDistribution,
    Sampling,
    Score,
    Stopping,
)
from charlm_client.wire.channel import Stubs
from charlm_client.wire.from_proto import (
    distribution_from,
    encoding_from,
    generation_from,
    model_from,
    score_from,
)
from charlm_client.wire.status_errors import translated
from charlm_client.wire.to_proto import (
    decode_message,
    encode_message,
    generate_message,
    model_name,
    next_message,
    score_message,
)

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 60.0

Response = TypeVar("Response")


class Client:
    """A connection to one server. Each call fails `timeout_s` seconds after it began.

    All methods raise subclasses of CharlmError. A model is named "shakespeare" or
    "models/shakespeare". A character outside the model's vocabulary raises UnknownCharacter, or
    is replaced with `replace_unknown`. Without `security` the connection has no TLS.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        security: Security | None = None,
        resuming: Resuming | None = None,
    ) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._security = security
        self._resuming = resuming or Resuming()
        self._opened: Stubs | None = None
        self._vocabularies: dict[str, tuple[bytes, ...]] = {}

    @property
    def _stubs(self) -> Stubs:
        """Made by the first call: a channel belongs to the event loop that it is made on."""
        if self._opened is None:
            self._opened = Stubs(self.address, self._security)
        return self._opened

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel all calls and disconnect."""
        if self._opened is not None:
            await self._opened.channel.close(grace=None)

    # --- generating ---

    async def generate(
        self,
        prompt: str | After,
        *,
        model: str,
        sampling: Sampling | None = None,
        stopping: Stopping | None = None,
        num_outputs: int | None = None,
        replace_unknown: bool = False,
    ) -> Generation:
        """Continue a prompt; returns when all outputs have ended.

        `num_outputs` is from 1, the default, to the model's `max_outputs`. Raises InvalidRequest
        for a parameter out of its range, and QueueFull when the server is too busy.
        """
        request = generate_message(
            prompt,
            model=model,
            sampling=sampling or Sampling(),
            stopping=stopping or Stopping(),
            num_outputs=num_outputs,
            replace_unknown=replace_unknown,
        )
        call = self._stubs.generation.Generate(request, timeout=self._timeout_s)
        return generation_from(await self._answer(call))

    def stream_generate(
        self,
        prompt: str | After,
        *,
        model: str,
        sampling: Sampling | None = None,
        stopping: Stopping | None = None,
        num_outputs: int | None = None,
        replace_unknown: bool = False,
    ) -> GenerationStream:
        """Continue a prompt; the stream returns characters as they are sampled.

        If the server fails, the stream continues on the next server that answers; see `Resuming`.
        """
        generate = generate_message(
            prompt,
            model=model,
            sampling=sampling or Sampling(),
            stopping=stopping or Stopping(),
            num_outputs=num_outputs,
            replace_unknown=replace_unknown,
        )
        deadline = time.monotonic() + self._timeout_s
        resuming = self._resuming

        def start_call(points: Sequence[generation_pb2.ResumePoint]) -> Any:
            request = generation_pb2.StreamGenerateRequest(
                generate=generate, resume_tokens=resuming.max_attempts > 0, resume=points
            )
            timeout_s = max(deadline - time.monotonic(), 0.0)
            return self._stubs.generation.StreamGenerate(request, timeout=timeout_s)

        return GenerationStream(
            start_call, self.address, num_outputs=num_outputs or 1, resuming=resuming
        )

    # --- asking for probabilities ---

    async def score(
        self,
        texts: Sequence[str],
        *,
        model: str,
        context: str | After = "",
        end_of_text: bool = False,
        details: bool | Details = False,
        replace_unknown: bool = False,
    ) -> list[Score]:
        """The log-probability of each text after the context.

        `end_of_text` also scores that the text ends there. `details=True` adds ranks and
        entropies, and a `Details` adds the most probable tokens or all distributions.
        """
        request = score_message(
            texts,
            model=model,
            context=context,
            end_of_text=end_of_text,
            details=details,
            replace_unknown=replace_unknown,
        )
        call = self._stubs.scoring.Score(request, timeout=self._timeout_s)
        response = await self._answer(call)
        vocabulary: tuple[bytes, ...] = ()
        if request.returns.top_k:
            vocabulary = await self._vocabulary(model, response.model_digest)
        return [score_from(score, vocabulary) for score in response.scores]

    def stream_score(
        self,
        pieces: Pieces,
        *,
        model: str,
        context: str | After = "",
        returns: Returns = "logprobs",
        replace_unknown: bool = False,
        timeout_s: float = DEFAULT_STREAM_TIMEOUT_S,
    ) -> ScoreStream:
        """Score a text of any length while it is read, in constant memory.

        `pieces` are UTF-8 bytes, cut anywhere. `returns` is "total" for the total alone,
        "logprobs" for those of all tokens too, or "details" for ranks and entropies too.
        """
        text = LongText(
            pieces=pieces,
            model=model,
            context=context,
            returns=returns,
            replace_unknown=replace_unknown,
        )
        start_call = partial(self._stubs.scoring.StreamScore, timeout=timeout_s)
        return ScoreStream(text, start_call, self.address)

    async def compare(
        self,
        texts: Sequence[str],
        *,
        models: Sequence[str],
        priors: Sequence[float] | None = None,
        replace_unknown: bool = False,
    ) -> list[Comparison]:
        """The posterior probability of each model for each text; the default priors are equal."""
        request = compare_message(
            texts, models=models, priors=priors, replace_unknown=replace_unknown
        )
        call = self._stubs.scoring.Compare(request, timeout=self._timeout_s)
        return comparisons_from(request, await self._answer(call))

    async def next_distribution(
        self, prompt: str | After, *, model: str, top_k: int = 10, replace_unknown: bool = False
    ) -> NextDistribution:
        """The distribution of the token after a prompt, and its `top_k` most probable tokens."""
        request = next_message(prompt, model=model, top_k=top_k, replace_unknown=replace_unknown)
        call = self._stubs.scoring.GetNextDistribution(request, timeout=self._timeout_s)
        response = await self._answer(call)
        return distribution_from(response, await self._vocabulary(model, response.model_digest))

    async def fill_gap(self, gap: Gap, *, model: str, replace_unknown: bool = False) -> FilledGap:
        """Fillings of a gap given the text on both sides, the most probable first."""
        request = gap_message(gap, model=model, replace_unknown=replace_unknown)
        call = self._stubs.inference.FillGap(request, timeout=self._timeout_s)
        return filled_gap_from(await self._answer(call))

    async def top_continuations(
        self,
        prompt: str | After,
        *,
        model: str,
        length: int,
        num: int = 10,
        max_steps: int | None = None,
        replace_unknown: bool = False,
    ) -> TopContinuations:
        """The `num` most probable continuations of `length` tokens (1 to 64).

        The search ends after `max_steps` model steps; the result says whether it is complete.
        """
        request = top_message(
            prompt,
            model=model,
            length=length,
            num=num,
            max_steps=max_steps,
            replace_unknown=replace_unknown,
        )
        call = self._stubs.inference.ListTopContinuations(request, timeout=self._timeout_s)
        return top_continuations_from(await self._answer(call))

    # --- compressing ---

    def compress(
        self, pieces: Pieces, *, model: str, timeout_s: float = DEFAULT_CODEC_TIMEOUT_S
    ) -> CodecStream:
        """Compress bytes while they are read, using the model's probabilities."""
        requests = compress_messages(pieces, model)
        start_call = partial(self._stubs.codec.Compress, timeout=timeout_s)
        return CodecStream(requests, start_call, self.address)

    def decompress(
        self,
        pieces: Pieces,
        *,
        model: str,
        skip_damaged_frames: bool = False,
        timeout_s: float = DEFAULT_CODEC_TIMEOUT_S,
    ) -> CodecStream:
        """Decompress the output of `compress`. Raises CodecMismatch for another model.

        A damaged frame raises DataLoss, or is left out with `skip_damaged_frames`.
        """
        requests = decompress_messages(pieces, model, skip_damaged_frames=skip_damaged_frames)
        start_call = partial(self._stubs.codec.Decompress, timeout=timeout_s)
        return CodecStream(requests, start_call, self.address)

    # --- tokens ---

    async def encode(
        self, texts: Sequence[str], *, model: str, replace_unknown: bool = False
    ) -> list[Encoding]:
        """The tokens of each text."""
        request = encode_message(texts, model=model, replace_unknown=replace_unknown)
        call = self._stubs.tokenizer.Encode(request, timeout=self._timeout_s)
        return list(map(encoding_from, (await self._answer(call)).encodings))

    async def decode(self, sequences: Sequence[Sequence[int]], *, model: str) -> list[str]:
        """The text of each sequence of token ids. Raises InvalidRequest for an unknown id."""
        request = decode_message(sequences, model=model)
        call = self._stubs.tokenizer.Decode(request, timeout=self._timeout_s)
        return list((await self._answer(call)).texts)

    async def vocabulary(self, *, model: str) -> tuple[bytes, ...]:
        """The bytes of each token, in order of id; the end of text, id 0, has none."""
        request = tokenizer_pb2.GetVocabularyRequest(model=model_name(model))
        call = self._stubs.tokenizer.GetVocabulary(request, timeout=self._timeout_s)
        return tuple((await self._answer(call)).tokens)

    async def _vocabulary(self, model: str, digest: str) -> tuple[bytes, ...]:
        if digest not in self._vocabularies:
            self._vocabularies[digest] = await self.vocabulary(model=model)
        return self._vocabularies[digest]

    @property
    def states(self) -> States:
        """Calls about kept states: create, advance, fork, export."""
        return States(self._stubs.states, self.address, self._timeout_s)

    # --- models and health ---

    @property
    def admin(self) -> Admin:
        """Calls of operators: load, alias and unload models."""
        return Admin(self._stubs.admin, self.address, self._timeout_s)

    async def list_models(self) -> list[Model]:
        """All loaded models."""
        models: list[Model] = []
        page_token = ""
        while True:
            request = models_pb2.ListModelsRequest(page_token=page_token)
            response = await self._answer(
                self._stubs.models.ListModels(request, timeout=self._timeout_s)
            )
            models += map(model_from, response.models)
            page_token = response.next_page_token
            if not page_token:
                return models

    async def get_model(self, model: str) -> Model:
        """One loaded model. Raises ModelNotFound."""
        request = models_pb2.GetModelRequest(name=model_name(model))
        response = await self._answer(self._stubs.models.GetModel(request, timeout=self._timeout_s))
        return model_from(response.model)

    async def only_model(self) -> str:
        """The name of the only loaded model.

        Raises ModelNotFound if none is loaded, and InvalidRequest if there are several.
        """
        names = [model.name for model in await self.list_models()]
        if not names:
            raise ModelNotFound(f"The server at {self.address} has no model loaded.")
        if len(names) > 1:
            raise InvalidRequest(f"Several models are loaded; name one of: {', '.join(names)}.")
        return names[0]

    async def check_health(self, service: str = "") -> bool:
        """Whether the server, or one of its services or models, is serving."""
        request = health_pb2.HealthCheckRequest(service=service)
        response = await self._answer(self._stubs.health.Check(request, timeout=self._timeout_s))
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    async def watch_health(self, service: str = "") -> AsyncIterator[bool]:
        """Whether it is serving: the present value, then one value for each change."""
        with translated(self.address):
            async for response in self._stubs.health.Watch(
                health_pb2.HealthCheckRequest(service=service)
            ):
                yield response.status == health_pb2.HealthCheckResponse.SERVING

    async def _answer(self, call: Awaitable[Response]) -> Response:
        with translated(self.address):
            return await call
