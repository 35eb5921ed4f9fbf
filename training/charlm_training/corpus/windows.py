"""Windows for truncated BPTT, cut from a token file in an order that a seed decides.

Every random draw is a function of (seed, epoch, purpose), never of a shared generator, so any
position can be reached without replaying what came before. B batch, T time, N tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from charlm_model.text.vocabulary import END_OF_TEXT_ID
from charlm_training.corpus.token_file import Ids, positions_of
from charlm_training.errors import InvalidOption

Indices = npt.NDArray[np.int64]

# What cross_entropy skips: the padding after the end of a short document.
NO_TARGET = -100
# The purposes of random draws: no two of them share their numbers.
PHASE, ORDER, FRESH = 0, 1, 2
# Documents are sorted by length among this many batches, which keeps padding small.
BATCHES_PER_POOL = 32


@dataclass(frozen=True, slots=True)
class Position:
    """The next window of training; a run continues exactly there."""

    epoch: int = 0
    window: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """The rows of one process. Row b continues row b of the window before, unless it is fresh.

    `num_targets` counts those of all processes.
    """

    input_BT: Tensor
    target_BT: Tensor
    is_fresh_B: Tensor
    num_targets: int
    after: Position

    def to(self, device: torch.device) -> Window:
        """The same window in the memory of that device."""
        return replace(
            self,
            input_BT=self.input_BT.to(device),
            target_BT=self.target_BT.to(device),
            is_fresh_B=self.is_fresh_B.to(device),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchShape:
    """How windows are cut. With several processes each takes its share of the rows of a batch.

    In a stream, `fresh_share` of the rows of every window start from a fresh state, although the
    text goes on: a model without cold starts in training predicts badly after one.
    """

    batch_size: int
    length: int
    seed: int = 0
    fresh_share: float = 0.0
    rank: int = 0
    num_ranks: int = 1

    def share_of(self, rank: int, num_ranks: int) -> BatchShape:
        """The share of one process: the same batch, with its own rows."""
        if self.batch_size < num_ranks:
            raise InvalidOption(
                f"{num_ranks} processes cannot share a batch of {self.batch_size} rows; start at "
                f"most {self.batch_size}, or give a larger --batch-size or a longer text."
            )
        return replace(self, rank=rank, num_ranks=num_ranks)

    def own_rows(self) -> slice:
        first, end = (
            rank * self.batch_size // self.num_ranks for rank in (self.rank, self.rank + 1)
        )
        return slice(first, end)


class Windows(Protocol):
    """An endless supply of windows, epoch after epoch."""

    @property
    def shape(self) -> BatchShape: ...

    @property
    def tokens_per_epoch(self) -> int: ...

    def starting_at(self, position: Position) -> Iterator[Window]: ...


def generator(seed: int, purpose: int, epoch: int, window: int = 0) -> np.random.Generator:
    """A private generator: the same numbers always give the same draws."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch << 40 | window << 8 | purpose]))


class StreamWindows:
    """One long text read by B lanes side by side.

    The text is a circle, because its first token is the end of text: after the last character
    comes the end, and then the beginning. Each epoch turns the circle by a random phase, so the
    cuts between windows and the starts of the lanes fall elsewhere every time.
    """

    def __init__(self, ids_N: Ids, shape: BatchShape) -> None:
        self._ids_N, self.shape = ids_N, shape
        self._lane_length = len(ids_N) // shape.batch_size
        self._windows_per_epoch = self._lane_length // shape.length

    @property
    def tokens_per_epoch(self) -> int:
        return self._windows_per_epoch * self.shape.batch_size * self.shape.length

    def starting_at(self, position: Position) -> Iterator[Window]:
        epoch, first = position.epoch, position.window
        while True:
            lanes_B = self._lanes(epoch)
            for index in range(first, self._windows_per_epoch):
                is_last = index + 1 == self._windows_per_epoch
                after = Position(epoch + 1, 0) if is_last else Position(epoch, index + 1)
                is_fresh_B = self._fresh_rows(epoch, index)
                yield self._window(lanes_B + index * self.shape.length, is_fresh_B, after)
            epoch, first = epoch + 1, 0

    def _lanes(self, epoch: int) -> Indices:
        """Where each lane of this process starts in this epoch."""
        phase = int(generator(self.shape.seed, PHASE, epoch).integers(len(self._ids_N)))
        lanes_B = phase + np.arange(self.shape.batch_size, dtype=np.int64) * self._lane_length
        return lanes_B[self.shape.own_rows()]

    def _fresh_rows(self, epoch: int, index: int) -> Tensor:
        draws_B = generator(self.shape.seed, FRESH, epoch, index).random(self.shape.batch_size)
        is_fresh_B = (draws_B < self.shape.fresh_share) | (index == 0)
        return torch.from_numpy(is_fresh_B[self.shape.own_rows()])

    def _window(self, starts_B: Indices, is_fresh_B: Tensor, after: Position) -> Window:
        offsets_T = np.arange(self.shape.length + 1)
        ids_BT = self._ids_N[(starts_B[:, None] + offsets_T) % len(self._ids_N)]
        tokens_BT = torch.from_numpy(ids_BT.astype(np.int64))
        num_targets = self.shape.batch_size * self.shape.length
        return Window(tokens_BT[:, :-1], tokens_BT[:, 1:], is_fresh_B, num_targets, after)


class DocumentWindows:
    """Many short documents: every row of a batch is one document from its start to its end.

    Rows begin with a fresh state, exactly as generation and evaluation do, so nothing leaks from
    one line into the next. Documents of similar length share a batch; a batch longer than a
    window continues in the next one.
    """

    def __init__(self, ids_N: Ids, shape: BatchShape) -> None:
        self._ids_N, self.shape = ids_N, shape
        self._edges = positions_of(ids_N, END_OF_TEXT_ID)
        self._lengths = np.diff(self._edges)

    @property
    def tokens_per_epoch(self) -> int:
        num_whole = len(self._lengths) // self.shape.batch_size * self.shape.batch_size
        return int(self._lengths.mean() * num_whole)

    def starting_at(self, position: Position) -> Iterator[Window]:
        epoch, first = position.epoch, position.window
        while True:
            cuts = list(self._cuts(epoch))
            for index in range(first, len(cuts)):
                is_last = index + 1 == len(cuts)
                after = Position(epoch + 1, 0) if is_last else Position(epoch, index + 1)
                yield self._window(*cuts[index], after)
            epoch, first = epoch + 1, 0

    def _cuts(self, epoch: int) -> Iterator[tuple[Indices, int]]:
        """For each window of an epoch, its documents and how far into them it starts."""
        for documents_B in self._batches(epoch):
            longest = int(self._lengths[documents_B].max())
            for start in range(0, longest, self.shape.length):
                yield documents_B, start

    def _batches(self, epoch: int) -> Iterator[Indices]:
        random = generator(self.shape.seed, ORDER, epoch)
        order = random.permutation(len(self._lengths))
        size = self.shape.batch_size
        for pool_start in range(0, len(order) - size + 1, size * BATCHES_PER_POOL):
            pool = order[pool_start : pool_start + size * BATCHES_PER_POOL]
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            for batch in random.permutation(len(pool) // size):
                yield pool[batch * size : (batch + 1) * size]

    def _window(self, documents_B: Indices, start: int, after: Position) -> Window:
        """As wide as the longest document needs, whichever worker has it."""
        left_B = np.clip(self._lengths[documents_B] - start, 0, self.shape.length)
        own_B, own_left_B = documents_B[self.shape.own_rows()], left_B[self.shape.own_rows()]
        offsets_T = np.arange(left_B.max())
        inside_BT = offsets_T < own_left_B[:, None]
        at_BT = np.where(inside_BT, self._edges[own_B][:, None] + start + offsets_T, 0)
        input_BT = torch.from_numpy(self._ids_N[at_BT].astype(np.int64))
        target_BT = np.where(inside_BT, self._ids_N[at_BT + 1].astype(np.int64), NO_TARGET)
        is_fresh_B = torch.full((len(own_B),), start == 0)
        num_targets = int(left_B.sum())
        return Window(input_BT, torch.from_numpy(target_BT), is_fresh_B, num_targets, after)


def stream_shape(num_tokens: int, wanted: BatchShape) -> BatchShape:
    """The wanted shape, reduced until every lane of a short text holds at least two windows."""
    length = min(wanted.length, max(num_tokens // 4, 1))
    batch_size = max(min(wanted.batch_size, num_tokens // (2 * length)), 1)
    return replace(wanted, batch_size=batch_size, length=length)


def document_shape(ids_N: Ids, wanted: BatchShape) -> BatchShape:
    """As many documents as hold the tokens of the wanted shape, and not more than there are."""
    num_documents = int(len(positions_of(ids_N, END_OF_TEXT_ID)) - 1)
    mean_length = (len(ids_N) - 1) / num_documents
    batch_size = max(round(wanted.batch_size * wanted.length / mean_length), 1)
    return replace(wanted, batch_size=min(batch_size, num_documents))
