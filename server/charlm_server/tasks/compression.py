"""Compression and decompression of a stream of bytes with a model, some frames at a time.

Frames are collected until they fill a batch, which is one search of the engine, in turns with other
work. Meanwhile no input is read: backpressure, so that memory stays constant.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from charlm_model.compression.byte_escape import EscapingTokenizer
from charlm_model.compression.frames import HEADER_BYTES, Damage, Deframer, Frame, Header
from charlm_model.compression.range_coding import (
    DecodingRow,
    EncodingRow,
    decode_rows,
    encode_rows,
    num_rows_together,
)
from charlm_model.compression.rows import (
    FrameSplitter,
    decoding_rows,
    encoding_rows,
    frames_from,
    text_from,
)
from charlm_server.engine.search import PrefixState
from charlm_server.errors.codec import (
    CodecDamaged,
    CodecHeaderDamaged,
    CodecMismatch,
    NumericsMismatch,
)
from charlm_server.models.registry import LoadedModel
from charlm_server.tasks.search_series import SearchSeries

Pieces = AsyncIterator[bytes]
EARLIER_MAGIC = b"CLM1"  # of a form that told its arithmetic by a hash alone


@dataclass(slots=True)
class Totals:
    """Counts of a stream so far."""

    num_text_bytes: int = 0
    num_compressed_bytes: int = 0
    num_frames: int = 0
    model_bits: float = 0.0


class FrameWorker:
    """Encodes and decodes one call's batches of frames, one after the other."""

    def __init__(self, series: SearchSeries) -> None:
        self._series, model = series, series.model
        state_bytes = model.checkpoint.model.initial_state(1).num_bytes_per_row
        self.num_rows = num_rows_together(model.batch_invariance.sizes, state_bytes)

    async def encode(self, rows: Sequence[EncodingRow]) -> None:
        num_steps = sum(row.num_tokens for row in rows)
        await self._series.ask(lambda start: encode_rows(*_parts(start), rows), num_steps=num_steps)

    async def decode(self, rows: Sequence[DecodingRow]) -> None:
        num_steps = sum(row.num_tokens for row in rows)
        await self._series.ask(lambda start: decode_rows(*_parts(start), rows), num_steps=num_steps)


def _parts(start: PrefixState) -> tuple[Any, Any, Any]:
    return start.stepper, start.state, start.logits_1V


class Compressor:
    """One call of Compress."""

    def __init__(self, series: SearchSeries) -> None:
        self.totals = Totals()
        self._worker, model = FrameWorker(series), series.model
        self._tokenizer = EscapingTokenizer(model.vocabulary)
        self._header = _header_of(model)

    async def run(self, pieces: Pieces) -> AsyncGenerator[bytes, None]:
        """The compressed form, cut anywhere."""
        splitter = FrameSplitter()
        yield self._counted(self._header.to_bytes())
        waiting: list[bytes] = []
        async for data in pieces:
            for piece in splitter.feed(data):
                waiting.append(piece)
                if len(waiting) == self._worker.num_rows:
                    yield await self._frames(waiting, is_end=False)
                    waiting = []
        yield await self._frames([*waiting, splitter.rest()], is_end=True)

    async def _frames(self, pieces: list[bytes], *, is_end: bool) -> bytes:
        rows = await asyncio.to_thread(encoding_rows, self._tokenizer, pieces)
        await self._worker.encode(rows)
        frames = frames_from(rows, pieces, self.totals.num_frames, is_end=is_end)
        self.totals.num_frames += len(frames)
        self.totals.num_text_bytes += sum(map(len, pieces))
        self.totals.model_bits += sum(row.model_bits for row in rows)
        return self._counted(b"".join(frame.to_bytes() for frame in frames))

    def _counted(self, data: bytes) -> bytes:
        self.totals.num_compressed_bytes += len(data)
        return data


@dataclass(frozen=True, slots=True)
class RestoredPart:
    """Some text, and which frames around it were damaged."""

    data: bytes = b""
    damaged: range = range(0)


class Decompressor:
    """One call of Decompress."""

    def __init__(self, series: SearchSeries, *, skips_damaged: bool) -> None:
        self.totals = Totals()
        self._worker, model = FrameWorker(series), series.model
        self._tokenizer = EscapingTokenizer(model.vocabulary)
        self._header, self._numerics = _header_of(model), model.numerics
        self._skips_damaged = skips_damaged
        self._head = bytearray()
        self._deframer = Deframer(skips_damage=skips_damaged)

    async def run(self, pieces: Pieces) -> AsyncGenerator[RestoredPart, None]:
        """The text. Raises CodecMismatch, CodecDamaged; the latter after all text before it."""
        waiting: list[Frame] = []
        async for data in pieces:
            for found in await self._found(self._after_head(data)):
                async for part in self._take(found, waiting):
                    yield part
        if len(self._head) < HEADER_BYTES:
            raise CodecHeaderDamaged
        for found in self._deframer.finish():
            async for part in self._take(found, waiting):
                yield part
        async for part in self._restored(waiting):
            yield part

    async def _found(self, data: bytes) -> list[Frame | Damage]:
        """Not on the loop: after damage every byte of the data may have to be looked at."""
        return await asyncio.to_thread(lambda: list(self._deframer.feed(data)))

    def _after_head(self, data: bytes) -> bytes:
        """The data after the header, which is checked as soon as it is complete."""
        self.totals.num_compressed_bytes += len(data)
        num_missing = HEADER_BYTES - len(self._head)
        if num_missing > 0:
            self._head += data[:num_missing]
            if len(self._head) == HEADER_BYTES:
                self._check(bytes(self._head))
        return data[max(num_missing, 0) :]

    def _check(self, head: bytes) -> None:
        header = Header.from_bytes(head)
        if head.startswith(EARLIER_MAGIC):
            raise NumericsMismatch("charlm-2 or earlier", self._numerics)
        if header is None:
            raise CodecHeaderDamaged
        if header.model != self._header.model:
            raise CodecMismatch(header.model.hex(), self._header.model.hex())
        if header.numerics != self._header.numerics:
            raise NumericsMismatch(header.numerics, self._numerics)

    async def _take(
        self, found: Frame | Damage, waiting: list[Frame]
    ) -> AsyncIterator[RestoredPart]:
        """Collect frames; restore them once they fill a batch, or before damage is reported."""
        if isinstance(found, Frame):
            waiting.append(found)
        if isinstance(found, Damage) or len(waiting) == self._worker.num_rows:
            async for part in self._restored(waiting):
                yield part
        if isinstance(found, Damage):
            yield self._damaged(found)

    async def _restored(self, waiting: list[Frame]) -> AsyncIterator[RestoredPart]:
        frames, waiting[:] = list(waiting), []
        if not frames:
            return
        rows = decoding_rows(frames)
        await self._worker.decode(rows)
        for frame, row in zip(frames, rows, strict=True):
            data = await asyncio.to_thread(text_from, self._tokenizer, frame, row)
            self.totals.num_frames += 1
            if data is None:
                yield self._damaged(Damage(frame.number, 1, frame.offset))
                continue
            self.totals.num_text_bytes += len(data)
            self.totals.model_bits += row.model_bits
            yield RestoredPart(data)

    def _damaged(self, damage: Damage) -> RestoredPart:
        if not self._skips_damaged:
            raise CodecDamaged(damage.number, damage.offset)
        return RestoredPart(damaged=range(damage.number, damage.number + damage.count))


def _header_of(model: LoadedModel) -> Header:
    return Header.of(model.checkpoint.digest, model.numerics)
