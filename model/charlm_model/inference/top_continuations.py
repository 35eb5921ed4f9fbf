"""Finds the most probable continuations exactly, by best-first search over prefixes.

A continuation is never more probable than any of its prefixes, so the best open prefix bounds all
continuations not yet found. The generator yields after every batch. Legend: V vocabulary.
"""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from math import fsum, inf

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from charlm_model.inference.batched_steps import Stepper
from charlm_model.sampling.draw import logprobs_from
from charlm_model.state import State, concat_rows
from charlm_model.text.vocabulary import END_OF_TEXT_ID

BATCH = 32  # prefixes read together; some may prove unnecessary
SMALL_BATCH = 4  # once states are evicted and have to be recomputed
MAX_NODE_BYTES = 128 << 20
MAX_STATE_BYTES = 64 << 20

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopContinuations:
    """Continuations (tokens, log-prob), best first, and a bound on the missing ones (nats)."""

    continuations: list[tuple[Path, float]]
    is_complete: bool
    missing_logprob_bound: float
    num_steps: int


@dataclass(frozen=True, slots=True)
class _Node:
    """A prefix that was read, with its next tokens and their log-probs, best first."""

    path: Path
    logprobs: tuple[float, ...]
    ids_V: NDArray[np.int32]
    logprobs_V: NDArray[np.float32]

    @property
    def num_bytes(self) -> int:
        return self.ids_V.nbytes + self.logprobs_V.nbytes + 64 * len(self.path) + 512


@dataclass(order=True, slots=True)
class _Open:
    """The best unexpanded child of a node; sorts by probability."""

    key: float
    path: Path
    node: _Node = field(compare=False)
    rank: int = field(compare=False)


class _Best:
    """The best continuations so far, and the log-prob of the best discarded one."""

    def __init__(self, num: int) -> None:
        self._num = num
        self._heap: list[tuple[float, Path]] = []  # the worst first; among equals the last path
        self.best_dropped = -inf

    def add(self, path: Path, logprob: float) -> None:
        heapq.heappush(self._heap, (logprob, tuple(-token for token in path)))
        if len(self._heap) > self._num:
            self.best_dropped = max(self.best_dropped, heapq.heappop(self._heap)[0])

    @property
    def worst(self) -> float:
        """The log-prob that a continuation must exceed to be kept."""
        return self._heap[0][0] if len(self._heap) == self._num else -inf

    def listed(self) -> list[tuple[Path, float]]:
        best = [(tuple(-token for token in path), logprob) for logprob, path in self._heap]
        return sorted(best, key=lambda each: (-each[1], each[0]))


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchLimits:
    """The number and length of continuations, and the limits of the search."""

    num: int
    length: int
    max_steps: int
    is_past_deadline: Callable[[], bool] = lambda: False


def search(
    stepper: Stepper, state: State, logits_1V: Tensor, limits: SearchLimits
) -> Generator[None, None, TopContinuations]:
    """The most probable continuations of `length` tokens, or of fewer and an end of text."""
    best = _Best(limits.num)
    states = _States(stepper, state)
    frontier = _Frontier(limits.length, best)
    frontier.expand(_node((), (), logits_1V))
    num_bytes = 0
    while frontier.bound > best.worst:
        batch_size = limits.max_steps - states.num_steps
        each = states.most_steps_each(limits.length)
        batch_size = min(BATCH if each == 1 else SMALL_BATCH, batch_size // each)
        if batch_size <= 0 or num_bytes > MAX_NODE_BYTES or limits.is_past_deadline():
            break
        batch = frontier.take(batch_size)
        for node in states.read(batch):
            num_bytes += node.num_bytes
            frontier.expand(node)
        yield
    listed = best.listed()
    bound = max(frontier.bound, best.best_dropped)
    is_complete = frontier.bound == -inf or (len(listed) == limits.num and listed[-1][1] >= bound)
    return TopContinuations(listed, is_complete, bound, states.num_steps)


class _Frontier:
    """A priority queue of prefixes and complete continuations, by log-prob."""

    def __init__(self, length: int, best: _Best) -> None:
        self._length, self._best = length, best
        self._open: list[_Open] = []

    @property
    def bound(self) -> float:
        """The log-prob of the most probable open entry."""
        return -self._open[0].key if self._open else -inf

    def expand(self, node: _Node) -> None:
        self._push(node, 0)

    def take(self, num: int) -> list[tuple[_Node, int]]:
        """Take the best open prefixes, at most `num`; complete continuations go to the results."""
        batch: list[tuple[_Node, int]] = []
        while self._open and len(batch) < num and self.bound > self._best.worst:
            each = heapq.heappop(self._open)
            self._push(each.node, each.rank + 1)
            token = int(each.node.ids_V[each.rank])
            if token == END_OF_TEXT_ID or len(each.path) == self._length:
                self._best.add(each.path, -each.key)
            else:
                batch.append((each.node, each.rank))
        return batch

    def _push(self, node: _Node, rank: int) -> None:
        if rank < len(node.ids_V):
            logprob = fsum((*node.logprobs, float(node.logprobs_V[rank])))
            path = (*node.path, int(node.ids_V[rank]))
            heapq.heappush(self._open, _Open(-logprob, path, node, rank))


class _States:
    """A cache of states after prefixes; evicted ones are recomputed from the start."""

    def __init__(self, stepper: Stepper, root: State) -> None:
        self._stepper, self._root = stepper, root
        self._kept: OrderedDict[Path, State] = OrderedDict()
        self._max_kept = max(2 * BATCH, MAX_STATE_BYTES // max(root.num_bytes_per_row, 1))
        self._has_forgotten = False
        self.num_steps = 0

    def most_steps_each(self, length: int) -> int:
        """The most steps that a prefix can cost: more than one once states were evicted."""
        return length if self._has_forgotten else 1

    def read(self, batch: list[tuple[_Node, int]]) -> list[_Node]:
        """Advance each prefix by one token; returns the new nodes."""
        if not batch:
            return []
        tokens = [int(node.ids_V[rank]) for node, rank in batch]
        state = concat_rows([self._after(node.path) for node, _ in batch])
        logits_BV, state = self._stepper.step(tokens, state)
        self.num_steps += len(batch)
        nodes = []
        for row, (parent, rank) in enumerate(batch):
            path = (*parent.path, tokens[row])
            logprobs = (*parent.logprobs, float(parent.logprobs_V[rank]))
            nodes.append(_node(path, logprobs, logits_BV[row : row + 1]))
            self._keep(path, state.select_rows([row]))
        return nodes

    def _after(self, path: Path) -> State:
        if not path:
            return self._root
        if path not in self._kept:
            _, state = self._stepper.advance([path], self._root.clone())
            self.num_steps += len(path)
            self._keep(path, state)
        self._kept.move_to_end(path)
        return self._kept[path]

    def _keep(self, path: Path, state: State) -> None:
        self._kept[path] = state
        while len(self._kept) > self._max_kept:
            self._kept.popitem(last=False)
            self._has_forgotten = True


def _node(path: Path, logprobs: tuple[float, ...], logits_1V: Tensor) -> _Node:
    logprobs_V = logprobs_from(logits_1V.numpy())[0].astype(np.float32)
    ids_V = np.argsort(-logprobs_V, kind="stable").astype(np.int32)
    return _Node(path, logprobs, ids_V, logprobs_V[ids_V])
