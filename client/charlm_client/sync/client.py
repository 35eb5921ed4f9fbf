"""The synchronous face: runs the asynchronous client on an event loop of its own thread."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from charlm_client.api.admin import Admin
from charlm_client.api.comparison import Comparison
from charlm_client.api.compression import DEFAULT_CODEC_TIMEOUT_S, CodecStream, CodecTotals
from charlm_client.api.generation_stream import GenerationStream
from charlm_client.api.inference import FilledGap, Gap, TopContinuations
from charlm_client.api.long_text import DEFAULT_STREAM_TIMEOUT_S, Returns, ScoredTokens, ScoreStream
from charlm_client.api.resuming import Resuming
from charlm_client.api.states import States
from charlm_client.client import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S, Client
from charlm_client.security import Security
from charlm_client.sync.admin import SyncAdmin
from charlm_client.sync.states import SyncStates
from charlm_client.types import (
    After,
    Chunk,
    Details,
    Encoding,
    Generation,
    Model,
    NextDistribution,
    Sampling,
    Score,
    Stopping,
    StreamHeader,
)

Result = TypeVar("Result")


class SyncClient:
    """`Client` for programs without an event loop: the same methods, which block."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        security: Security | None = None,
        resuming: Resuming | None = None,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = Client(address, timeout_s=timeout_s, security=security, resuming=resuming)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect and end the thread."""
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def generate(
        self,
        prompt: str | After,
        *,
        model: str,
        sampling: Sampling | None = None,
        stopping: Stopping | None = None,
        num_outputs: int | None = None,
        replace_unknown: bool = False,
    ) -> Generation:
        """See Client.generate."""
        return self._run(
            self._client.generate(
                prompt,
                model=model,
                sampling=sampling,
                stopping=stopping,
                num_outputs=num_outputs,
                replace_unknown=replace_unknown,
            )
        )

    def stream_generate(
        self,
        prompt: str | After,
        *,
        model: str,
        sampling: Sampling | None = None,
        stopping: Stopping | None = None,
        num_outputs: int | None = None,
        replace_unknown: bool = False,
    ) -> "SyncGenerationStream":
        """See Client.stream_generate."""

        async def start() -> GenerationStream:
            return self._client.stream_generate(
                prompt,
                model=model,
                sampling=sampling,
                stopping=stopping,
                num_outputs=num_outputs,
                replace_unknown=replace_unknown,
            )

        return SyncGenerationStream(self._run(start()), self._run)

    def score(
        self,
        texts: Sequence[str],
        *,
        model: str,
        context: str | After = "",
        end_of_text: bool = False,
        details: bool | Details = False,
        replace_unknown: bool = False,
    ) -> list[Score]:
        """See Client.score."""
        return self._run(
            self._client.score(
                texts,
                model=model,
                context=context,
                end_of_text=end_of_text,
                details=details,
                replace_unknown=replace_unknown,
            )
        )

    def stream_score(
        self,
        pieces: bytes | Iterable[bytes],
        *,
        model: str,
        context: str | After = "",
        returns: Returns = "logprobs",
        replace_unknown: bool = False,
        timeout_s: float = DEFAULT_STREAM_TIMEOUT_S,
    ) -> "SyncScoreStream":
        """See Client.stream_score."""

        async def start() -> ScoreStream:
            return self._client.stream_score(
                pieces,
                model=model,
                context=context,
                returns=returns,
                replace_unknown=replace_unknown,
                timeout_s=timeout_s,
            )

        return SyncScoreStream(self._run(start()), self._run)

    def compare(
        self,
        texts: Sequence[str],
        *,
        models: Sequence[str],
        priors: Sequence[float] | None = None,
        replace_unknown: bool = False,
    ) -> list[Comparison]:
        """See Client.compare."""
        return self._run(
            self._client.compare(
                texts, models=models, priors=priors, replace_unknown=replace_unknown
            )
        )

    def next_distribution(
        self, prompt: str | After, *, model: str, top_k: int = 10, replace_unknown: bool = False
    ) -> NextDistribution:
        """See Client.next_distribution."""
        return self._run(
            self._client.next_distribution(
                prompt, model=model, top_k=top_k, replace_unknown=replace_unknown
            )
        )

    def fill_gap(self, gap: Gap, *, model: str, replace_unknown: bool = False) -> FilledGap:
        """See Client.fill_gap."""
        return self._run(self._client.fill_gap(gap, model=model, replace_unknown=replace_unknown))

    def top_continuations(
        self,
        prompt: str | After,
        *,
        model: str,
        length: int,
        num: int = 10,
        max_steps: int | None = None,
        replace_unknown: bool = False,
    ) -> TopContinuations:
        """See Client.top_continuations."""
        return self._run(
            self._client.top_continuations(
                prompt,
                model=model,
                length=length,
                num=num,
                max_steps=max_steps,
                replace_unknown=replace_unknown,
            )
        )

    @property
    def states(self) -> SyncStates:
        """See Client.states."""

        async def connected() -> States:  # in the loop's thread: others cannot make a channel
            return self._client.states

        return SyncStates(self._run(connected()), self._run)

    @property
    def admin(self) -> SyncAdmin:
        """See Client.admin."""

        async def connected() -> Admin:
            return self._client.admin

        return SyncAdmin(self._run(connected()), self._run)

    def compress(
        self,
        pieces: bytes | Iterable[bytes],
        *,
        model: str,
        timeout_s: float = DEFAULT_CODEC_TIMEOUT_S,
    ) -> "SyncCodecStream":
        """See Client.compress."""

        async def start() -> CodecStream:
            return self._client.compress(pieces, model=model, timeout_s=timeout_s)

        return SyncCodecStream(self._run(start()), self._run)

    def decompress(
        self,
        pieces: bytes | Iterable[bytes],
        *,
        model: str,
        skip_damaged_frames: bool = False,
        timeout_s: float = DEFAULT_CODEC_TIMEOUT_S,
    ) -> "SyncCodecStream":
        """See Client.decompress."""

        async def start() -> CodecStream:
            return self._client.decompress(
                pieces, model=model, skip_damaged_frames=skip_damaged_frames, timeout_s=timeout_s
            )

        return SyncCodecStream(self._run(start()), self._run)

    def encode(
        self, texts: Sequence[str], *, model: str, replace_unknown: bool = False
    ) -> list[Encoding]:
        """See Client.encode."""
        return self._run(self._client.encode(texts, model=model, replace_unknown=replace_unknown))

    def decode(self, sequences: Sequence[Sequence[int]], *, model: str) -> list[str]:
        """See Client.decode."""
        return self._run(self._client.decode(sequences, model=model))

    def vocabulary(self, *, model: str) -> tuple[bytes, ...]:
        """See Client.vocabulary."""
        return self._run(self._client.vocabulary(model=model))

    def list_models(self) -> list[Model]:
        """See Client.list_models."""
        return self._run(self._client.list_models())

    def get_model(self, model: str) -> Model:
        """See Client.get_model."""
        return self._run(self._client.get_model(model))

    def only_model(self) -> str:
        """See Client.only_model."""
        return self._run(self._client.only_model())

    def check_health(self, service: str = "") -> bool:
        """See Client.check_health."""
        return self._run(self._client.check_health(service))

    def watch_health(self, service: str = "") -> Iterator[bool]:
        """See Client.watch_health."""
        changes = self._client.watch_health(service)
        while (is_serving := self._run(_next(changes.__anext__))) is not None:
            yield is_serving

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waiting.result()
        finally:
            waiting.cancel()  # the call, when Ctrl-C ended the wait; otherwise harmless


class SyncGenerationStream:
    """`GenerationStream` as a plain iterator; leaving the block cancels the call."""

    def __init__(
        self, stream: GenerationStream, run: Callable[[Coroutine[Any, Any, Any]], Any]
    ) -> None:
        self._stream, self._run = stream, run

    @property
    def header(self) -> StreamHeader | None:
        """Set once the first chunk has come."""
        return self._stream.header

    def __iter__(self) -> Iterator[Chunk]:
        chunks = self._stream.__aiter__()
        while (chunk := self._run(_next(chunks.__anext__))) is not None:
            yield chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run(self._stream.__aexit__(kind, error, traceback))


class SyncCodecStream:
    """`CodecStream` as a plain iterator."""

    def __init__(self, stream: CodecStream, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._stream, self._run = stream, run

    @property
    def totals(self) -> CodecTotals | None:
        """Set once all has come."""
        return self._stream.totals

    @property
    def damaged_frames(self) -> list[int]:
        """Numbers of frames that were skipped, from 0."""
        return self._stream.damaged_frames

    def __iter__(self) -> Iterator[bytes]:
        pieces = self._stream.__aiter__()
        while (data := self._run(_next(pieces.__anext__))) is not None:
            yield data

    def read(self) -> bytes:
        """All of it at once."""
        return b"".join(self)


class SyncScoreStream:
    """`ScoreStream` as a plain iterator."""

    def __init__(self, stream: ScoreStream, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._stream, self._run = stream, run

    @property
    def total(self) -> Score | None:
        """Set once all has come."""
        return self._stream.total

    @property
    def model_digest(self) -> str:
        """Set once all has come."""
        return self._stream.model_digest

    def __iter__(self) -> Iterator[ScoredTokens]:
        parts = self._stream.__aiter__()
        while (tokens := self._run(_next(parts.__anext__))) is not None:
            yield tokens

    def read_total(self) -> Score:
        """See ScoreStream.read_total."""
        total: Score = self._run(self._stream.read_total())
        return total


async def _next(advance: Callable[[], Awaitable[Result]]) -> Result | None:
    try:
        return await advance()
    except StopAsyncIteration:
        return None
