"""Scoring of a long text as it arrives, a bounded block at a time.

Backpressure: no input is read while a block is scored, and an unread response pauses that call's
input. Memory is that of a piece and a block, however long the text is.

Legend: T tokens, V vocabulary.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from charlm_model.snapshot import Snapshot
from charlm_model.state import State
from charlm_server.engine.pacing import ChunkPacer
from charlm_server.engine.prefill import MAX_LOGITS
from charlm_server.engine.search import PrefixState
from charlm_server.engine.token_columns import (
    Ids,
    Returns,
    TokenColumns,
    columns_of,
    concat_columns,
)
from charlm_server.tasks.search_series import SearchSeries

MAX_BLOCK = 4096  # tokens of one response
MAX_CHUNK = 1024  # tokens that are read in one go
CHUNK_TARGET_S = 0.01
LARGE_PIECE_BYTES = 1 << 16  # encoded off the loop, which serves others

Encode = Callable[[bytes, bool], Ids]  # a piece, and whether it is the last


@dataclass(frozen=True, slots=True)
class ScoredBlock:
    """Some tokens in a row, and whether each was the most probable one."""

    columns: TokenColumns
    is_greedy: bool


class LongTextScorer:
    """Scores one text and keeps the state between its blocks."""

    def __init__(
        self,
        series: SearchSeries,
        context_ids: Sequence[int],
        returns: Returns,
        snapshot: Snapshot | None = None,
    ) -> None:
        model = series.model
        per_message = model.limits.max_response_message_bytes
        per_token = returns.bytes_per_token(model.vocab_size)
        self._max_block = max(1, min(MAX_BLOCK, per_message // per_token))
        self._max_chunk = max(1, min(MAX_CHUNK, MAX_LOGITS // model.vocab_size))
        self._series = series
        self._context_ids: Sequence[int] | None = context_ids  # until it is read
        self._snapshot = snapshot  # read before the context
        self._returns = returns
        self._pacer = ChunkPacer(self._max_chunk)
        self._state: State
        self._pending_1V: Tensor  # logits of the next token

    async def run(
        self, pieces: AsyncIterator[bytes], encode: Encode
    ) -> AsyncGenerator[ScoredBlock, None]:
        """The scores, in order. Raises what `encode` does."""
        async for data in pieces:
            ids = await _encoded(encode, data)
            for block_T in self.blocks(ids):
                yield await self.score(block_T)
        ids = encode(b"", True)
        if len(ids):
            yield await self.score(ids)

    def blocks(self, ids_T: Ids) -> Iterator[Ids]:
        """The ids, so many at a time as fit one response."""
        for first in range(0, len(ids_T), self._max_block):
            yield ids_T[first : first + self._max_block]

    def snapshot(self, num_tokens: int) -> Snapshot:
        """After all that was scored, which is something; it is so many tokens of text."""
        return Snapshot.of(self._state, self._pending_1V, num_tokens)

    async def score(self, ids_T: Ids) -> ScoredBlock:
        """The scores of the next block."""
        if self._context_ids is None:
            block = await self._series.ask(lambda _: self._read(ids_T), num_steps=len(ids_T))
        else:
            block = await self._series.ask(
                lambda start: self._begin(start, ids_T),
                num_steps=len(ids_T),
                context_ids=self._context_ids,
                snapshot=self._snapshot,
            )
            self._context_ids = None
        assert isinstance(block, ScoredBlock)
        return block

    # --- on the engine's thread ---

    def _begin(self, start: PrefixState, ids_T: Ids) -> Generator[None, None, ScoredBlock]:
        self._stepper, self._state, self._pending_1V = start.stepper, start.state, start.logits_1V
        return (yield from self._read(ids_T))

    def _read(self, ids_T: Ids) -> Generator[None, None, ScoredBlock]:
        """Score a block chunk by chunk; the chunks are as long as the engine's ticks allow."""
        parts: list[TokenColumns] = []
        is_greedy = True
        first = 0
        while first < len(ids_T):
            started = time.thread_time()
            chunk_T = ids_T[first : first + self._pacer.num_steps(CHUNK_TARGET_S)]
            logits_TV = self._logits(chunk_T)
            parts.append(columns_of(logits_TV, chunk_T, self._returns))
            is_greedy &= bool((logits_TV.numpy().argmax(axis=-1) == chunk_T).all())
            self._pacer.record(len(chunk_T), time.thread_time() - started)
            first += len(chunk_T)
            yield
        return ScoredBlock(concat_columns(parts), is_greedy)

    def _logits(self, ids_T: Ids) -> Tensor:
        """Read the ids; returns the logits before each of them."""
        after_1TV, self._state = self._stepper.advance([ids_T.tolist()], self._state)
        logits_TV = torch.cat([self._pending_1V, after_1TV[0, :-1]])
        self._pending_1V = after_1TV[0, -1:].clone()
        return logits_TV


async def _encoded(encode: Encode, data: bytes) -> Ids:
    if len(data) < LARGE_PIECE_BYTES:
        return encode(data, False)
    return await asyncio.to_thread(encode, data, False)
