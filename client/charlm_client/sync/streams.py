"""The streams of the synchronous client: plain iterators over the asynchronous ones."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from charlm_client.api.compression import CodecStream, CodecTotals
from charlm_client.api.generation_stream import GenerationStream
from charlm_client.api.long_text import ScoredTokens, ScoreStream
from charlm_client.sync.blocking import Blocking, blocking
from charlm_client.types import Chunk, Score, StreamHeader


class SyncGenerationStream(Blocking[GenerationStream]):
    """`GenerationStream` as a plain iterator; leaving the block cancels the call."""

    @property
    def header(self) -> StreamHeader | None:
        """Set before the first chunk."""
        return self._asynchronous.header

    def __iter__(self) -> Iterator[Chunk]:
        return self._items(self._asynchronous.__aiter__())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run(self._asynchronous.__aexit__(kind, error, traceback))


class SyncCodecStream(Blocking[CodecStream]):
    """`CodecStream` as a plain iterator."""

    read = blocking(CodecStream.read)

    @property
    def totals(self) -> CodecTotals | None:
        """Set after the last item."""
        return self._asynchronous.totals

    @property
    def damaged_frames(self) -> list[range]:
        """Frames that were damaged or missing and are skipped, as ranges of numbers from 0."""
        return self._asynchronous.damaged_frames

    def __iter__(self) -> Iterator[bytes]:
        return self._items(self._asynchronous.__aiter__())


class SyncScoreStream(Blocking[ScoreStream]):
    """`ScoreStream` as a plain iterator."""

    read_total = blocking(ScoreStream.read_total)

    @property
    def total(self) -> Score | None:
        """Set after the last item."""
        return self._asynchronous.total

    @property
    def model_digest(self) -> str:
        """Set after the last item."""
        return self._asynchronous.model_digest

    def __iter__(self) -> Iterator[ScoredTokens]:
        return self._items(self._asynchronous.__aiter__())
