"""Compresses texts with a range coder over the model's distribution.

Encoder and decoder need the same logits, bit for bit: the encoder reads in chunks and the decoder
token by token, which the exact path guarantees to be equal. Frames are independent texts, so a
batch computes many of them.

Legend: B rows, T tokens, V vocabulary.
"""

from collections.abc import Generator, Sequence
from math import log
from typing import Generic, Protocol, TypeVar

import constriction
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm_model import exact_math
from charlm_model.compression.byte_escape import MAX_RUN, EscapedTokens
from charlm_model.inference.batched_steps import Stepper
from charlm_model.sampling.draw import logprobs_from
from charlm_model.sampling.processors import Floats
from charlm_model.state import State
from charlm_model.text.vocabulary import END_OF_TEXT_ID

MAX_ROWS = 32
_MAX_STATE_BYTES = 256 << 20
_PIECE_TOKENS = 256  # of all rows, read at a time

# Frequencies of 24 bits from float32; none is 0, so every token can be encoded.
_TOKENS = constriction.stream.model.Categorical(perfect=False)
_BYTES = constriction.stream.model.Uniform(MAX_RUN)

Words = NDArray[np.uint32]


class EncodingRow:
    """The encoder of one frame."""

    def __init__(self, escaped: EscapedTokens) -> None:
        self._ids = np.array(escaped.ids, dtype=np.int32)
        self._runs = iter(escaped.runs)
        self._coder = constriction.stream.queue.RangeEncoder()
        self._position = 0
        self.model_bits = 0.0  # cross-entropy of the tokens plus the cost of escaped bytes

    @property
    def num_tokens(self) -> int:
        return len(self._ids)

    @property
    def num_left(self) -> int:
        return len(self._ids) - self._position

    def ids_from_here(self, num: int) -> list[int]:
        """The next tokens, padded to this number."""
        ids: list[int] = self._ids[self._position : self._position + num].tolist()
        return ids + [0] * (num - len(ids))

    def encode(self, logprobs_TV: Floats) -> None:
        """Encode the next tokens, given the distribution of each; surplus rows are padding."""
        ids_T = self._ids[self._position : self._position + len(logprobs_TV)]
        self._position += len(ids_T)
        self.model_bits -= float(logprobs_TV[np.arange(len(ids_T)), ids_T].sum()) / log(2)
        probabilities_TV = exact_math.exp(logprobs_TV[: len(ids_T)]).astype(np.float32)
        start = 0
        for escape in np.flatnonzero(ids_T == END_OF_TEXT_ID):
            until = slice(start, int(escape) + 1)
            self._coder.encode(ids_T[until], _TOKENS, probabilities_TV[until])
            self._encode_run(next(self._runs))
            start = int(escape) + 1
        if start < len(ids_T):
            self._coder.encode(ids_T[start:], _TOKENS, probabilities_TV[start:])

    def payload(self) -> bytes:
        words: Words = self._coder.get_compressed()
        return words.astype("<u4").tobytes()

    def _encode_run(self, run: bytes) -> None:
        values = np.array([len(run) - 1, *run], dtype=np.int32)
        self._coder.encode(values, _BYTES)
        self.model_bits += 8 * len(values)


class DecodingRow:
    """The decoder of one frame, whose payload has been verified by its checksum."""

    def __init__(self, payload: bytes, num_tokens: int) -> None:
        words = np.frombuffer(payload, dtype="<u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)
        self.num_tokens = num_tokens
        self.escaped = EscapedTokens([], [])
        self.model_bits = 0.0

    @property
    def num_left(self) -> int:
        return self.num_tokens - len(self.escaped.ids)

    @property
    def last_id(self) -> int:
        return self.escaped.ids[-1] if self.escaped.ids else END_OF_TEXT_ID

    def decode(self, probabilities_1V: NDArray[np.float32], logprobs_V: Floats) -> None:
        token_id = int(self._coder.decode(_TOKENS, probabilities_1V)[0])
        self.escaped.ids.append(token_id)
        self.model_bits -= float(logprobs_V[token_id]) / log(2)
        if token_id == END_OF_TEXT_ID:
            num_bytes = int(self._coder.decode(_BYTES)) + 1
            self.escaped.runs.append(bytes(self._coder.decode(_BYTES, num_bytes).tolist()))
            self.model_bits += 8 * (num_bytes + 1)


class _Row(Protocol):
    @property
    def num_left(self) -> int: ...


RowT = TypeVar("RowT", bound=_Row)


def num_rows_together(sizes: Sequence[int], state_bytes: int) -> int:
    """How many frames a batch has: bounded by the verified sizes and by memory."""
    return min(MAX_ROWS, max(sizes), max(1, _MAX_STATE_BYTES // max(1, state_bytes)))


def encode_rows(
    stepper: Stepper, state_1: State, logits_1V: Tensor, rows: Sequence[EncodingRow]
) -> Generator[None, None, None]:
    """Encode all rows from the start of a text, whose state and logits are given."""
    batch = _Batch(stepper, state_1, rows, EncodingRow(EscapedTokens([], [])))
    pending_B1V = logits_1V[None].expand(len(batch.rows), -1, -1)
    while batch.num_left:
        num = _piece_length(stepper, batch)
        logits_BTV = batch.advance([row.ids_from_here(num) for row in batch.rows])
        shifted_BTV = torch.cat([pending_B1V, logits_BTV[:, :-1]], dim=1)
        for row, logits_TV in zip(batch.rows, shifted_BTV, strict=True):
            if row.num_left:
                row.encode(logprobs_from(logits_TV.numpy()))
        pending_B1V = logits_BTV[batch.shrink(), -1:]
        yield


def decode_rows(
    stepper: Stepper, state_1: State, logits_1V: Tensor, rows: Sequence[DecodingRow]
) -> Generator[None, None, None]:
    """Decode all rows from the start of a text, one token of every row at a time."""
    batch = _Batch(stepper, state_1, rows, DecodingRow(b"", 0))
    logits_BV = logits_1V.expand(len(batch.rows), -1)
    while batch.num_left:
        logprobs_BV = logprobs_from(logits_BV.numpy())
        probabilities_BV = exact_math.exp(logprobs_BV).astype(np.float32)
        for at, row in enumerate(batch.rows):
            if row.num_left:
                row.decode(probabilities_BV[at : at + 1], logprobs_BV[at])
        batch.shrink()
        if batch.num_left:
            logits_BV = batch.advance([[row.last_id] for row in batch.rows])[:, 0]
            yield


class _Batch(Generic[RowT]):
    """Rows and their state, in a verified size; finished rows idle until a smaller size fits."""

    def __init__(self, stepper: Stepper, state_1: State, rows: Sequence[RowT], idle: RowT) -> None:
        self._stepper = stepper
        self.rows = [*rows, *[idle] * (self._size_for(len(rows)) - len(rows))]
        self._state = state_1.select_rows([0] * len(self.rows))

    @property
    def num_left(self) -> int:
        """Tokens left in the longest row."""
        return max((row.num_left for row in self.rows), default=0)

    def advance(self, ids_BT: Sequence[Sequence[int]]) -> Tensor:
        logits_BTV, self._state = self._stepper.advance(ids_BT, self._state)
        return logits_BTV

    def shrink(self) -> list[int]:
        """Drop finished rows if a smaller batch size fits; returns the remaining indices."""
        order = sorted(range(len(self.rows)), key=lambda at: not self.rows[at].num_left)
        num_live = sum(row.num_left > 0 for row in self.rows)
        size = self._size_for(num_live)
        if size >= len(self.rows):
            return list(range(len(self.rows)))
        kept = order[:size]
        self.rows, self._state = [self.rows[at] for at in kept], self._state.select_rows(kept)
        return kept

    def _size_for(self, num: int) -> int:
        return min((size for size in self._stepper.sizes if size >= num), default=num)


def _piece_length(stepper: Stepper, batch: _Batch[EncodingRow]) -> int:
    if max(stepper.sizes) == 1:
        return 1  # no size is verified: read token by token, as the decoder does
    return max(1, min(_PIECE_TOKENS // len(batch.rows), batch.num_left))
