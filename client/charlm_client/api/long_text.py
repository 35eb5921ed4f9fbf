"""Scoring a text of any length, as streams in both directions."""

from __future__ import annotations  # gRPC's calls are generic for type checkers only

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from charlm.v1 import distribution_pb2
from charlm.v1 import scoring_pb2 as pb
from charlm_client.api.compression import Pieces, sendable
from charlm_client.types import After, Score
from charlm_client.wire.first_status import FirstStatus
from charlm_client.wire.from_proto import score_from
from charlm_client.wire.request_stream import RequestStream
from charlm_client.wire.status_errors import translated
from charlm_client.wire.to_proto import check_word, context_message, model_name, unknown_policy

DEFAULT_STREAM_TIMEOUT_S = 3600.0  # streams last as long as their files are large

Returns = Literal["total", "logprobs", "details"]
"""The total alone; log-probs of all tokens too; ranks and entropies too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LongText:
    """A text to score: UTF-8 bytes cut anywhere, or any bytes for models of bytes."""

    pieces: Pieces
    model: str
    context: str | After = ""
    returns: Returns = "logprobs"
    replace_unknown: bool = False

    def __post_init__(self) -> None:
        check_word(self.returns, get_args(Returns), "returns")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredTokens:
    """Scores of consecutive tokens, in nats; ranks and entropies only with returns="details"."""

    first_position: int
    token_ids: tuple[int, ...]
    character_offsets: tuple[int, ...]
    """Where each token begins in the whole text, in characters."""
    logprobs: tuple[float, ...]
    ranks: tuple[int, ...]
    entropies: tuple[float, ...]


class ScoreStream:
    """Scored tokens in order. `total` and `model_digest` are set after the last ones."""

    def __init__(self, text: LongText, start_call: Callable[[Any], Any], address: str) -> None:
        self._address = address
        self._requests_sent = RequestStream(_messages(text))
        self._call = start_call(self._requests_sent)
        self._status = FirstStatus(self._call)
        self.total: Score | None = None
        self.model_digest = ""

    async def __aiter__(self) -> AsyncIterator[ScoredTokens]:
        with self._requests_sent.raising_failures(), translated(self._address, self._status):
            try:
                async for response in self._call:
                    if response.HasField("total"):
                        self.total = score_from(response.total)
                        self.model_digest = response.model_digest
                    if response.HasField("tokens"):
                        yield _tokens_from(response.tokens)
            finally:
                self._call.cancel()  # harmless when it is over

    async def read_total(self) -> Score:
        """Read the rest of the stream and return the total."""
        async for _ in self:
            pass
        assert self.total is not None
        return self.total


async def _messages(text: LongText) -> AsyncIterator[pb.StreamScoreRequest]:
    yield pb.StreamScoreRequest(start=_start_message(text))
    async for data in sendable(text.pieces):
        yield pb.StreamScoreRequest(data=data)


def _start_message(text: LongText) -> pb.StreamScoreStart:
    return pb.StreamScoreStart(
        model=model_name(text.model),
        context=context_message(text.context),
        returns=distribution_pb2.ReturnOptions(
            logprobs=text.returns != "total",
            ranks=text.returns == "details",
            entropies=text.returns == "details",
        ),
        unknown_characters=unknown_policy(text.replace_unknown),
    )


def _tokens_from(tokens: pb.ScoredTokens) -> ScoredTokens:
    return ScoredTokens(
        first_position=tokens.first_position,
        token_ids=tuple(tokens.token_ids),
        character_offsets=tuple(tokens.character_offsets),
        logprobs=tuple(tokens.logprobs),
        ranks=tuple(tokens.ranks),
        entropies=tuple(tokens.entropies),
    )
