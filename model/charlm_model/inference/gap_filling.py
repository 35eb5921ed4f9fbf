"""Fills a gap given both sides: by enumeration of all fillings, or by importance sampling.

p(gap | left, right) is proportional to p(gap, right | left). Generators yield after every batch.
Legend: B rows, T tokens, V vocabulary.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np
import torch
from torch import Tensor

from charlm_model.exact_math import exp, exp_of_number, log_of_number
from charlm_model.inference.batched_steps import Stepper
from charlm_model.sampling.draw import draw, logprobs_from
from charlm_model.sampling.philox import uniforms
from charlm_model.sampling.processors import Floats
from charlm_model.state import State, concat_rows
from charlm_model.text.vocabulary import END_OF_TEXT_ID

MAX_EXACT_LENGTH = 2
MAX_FILLINGS = 100_000  # that are enumerated: two bytes are 65,536
MAX_LOGITS = 1 << 21  # of one batch
MAX_TOKENS = 1024  # of all rows that are read at a time: some milliseconds

Path = tuple[int, ...]
Leaves = list[tuple[Path, float]]


@dataclass(frozen=True, slots=True)
class Filling:
    """Tokens, posterior probability given both sides, and log-prob of gap and right text."""

    ids: Path
    posterior: float
    total_logprob: float


@dataclass(frozen=True, slots=True)
class GapFillings:
    """The most probable fillings, best first; log p(right text) over all fillings (nats)."""

    fillings: list[Filling]
    log_evidence: float
    effective_sample_size: float | None  # None if all were enumerated


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """The gap's length, and both sides; fillings have no end of text."""

    stepper: Stepper
    state: State  # one row, after the left text
    logits_1V: Tensor
    right: Sequence[int]
    length: int

    @property
    def vocab_size(self) -> int:
        return self.stepper.model.config.vocab_size


def num_enumerated(length: int, vocab_size: int) -> int:
    """How many of the gap's last tokens are enumerated; those before are sampled."""
    num_tokens = vocab_size - 1
    is_exact: bool = length <= MAX_EXACT_LENGTH and num_tokens**length <= MAX_FILLINGS
    if is_exact:
        return length
    return 1 if num_tokens <= _MAX_LAST else 0


_MAX_LAST = 300  # vocabulary size up to which the last token is enumerated


def num_steps(length: int, vocab_size: int, num_right: int, num_particles: int) -> int:
    """An upper bound on the tokens that `fill` reads."""
    depth = num_enumerated(length, vocab_size)
    num_starts = 1 if depth == length else num_particles
    num_leaves: int = (vocab_size - 1) ** depth
    return num_starts * (length + num_leaves * (1 + num_right))


def fill(
    gap: Gap, *, num_fillings: int, num_particles: int, seed: int
) -> Generator[None, None, GapFillings]:
    """Exact if the whole gap is enumerated; else the first tokens are sampled and weighted."""
    depth = num_enumerated(gap.length, gap.vocab_size)
    is_exact = depth == gap.length
    beginnings: dict[Path, _Beginning] = {
        (): _Beginning(state=gap.state, logits_1V=gap.logits_1V, num_particles=1)
    }
    if not is_exact:
        beginnings = yield from _sampled(gap, gap.length - depth, num_particles, seed)
    weighed = _Weighed(num_fillings)
    for ids, beginning in beginnings.items():
        log_weights = []
        for leaves in _leaves(gap, ids, beginning, depth):
            log_weights += [weighed.add(leaf, total, beginning) for leaf, total in leaves or ()]
            yield
        weighed.close(log_weights, beginning.num_particles)
    return weighed.filled(is_exact=is_exact)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Beginning:
    """The first tokens of a gap: their log-probs, and that of sampling them."""

    state: State
    logits_1V: Tensor
    logprobs: tuple[float, ...] = ()
    proposal_logprob: float = 0.0  # of sampling them: without the end of text
    num_particles: int


class _Weighed:
    """Enumerated fillings with their weights, and sums of weights over each beginning."""

    def __init__(self, num_fillings: int) -> None:
        self._num_fillings = num_fillings
        self._ids: list[Path] = []
        self._totals: list[float] = []
        self._log_weights: list[float] = []  # over all particles of the filling's beginning
        self._starts: list[tuple[float, int]] = []  # log-weight of a particle, number of particles

    def add(self, ids: Path, total: float, beginning: _Beginning) -> float:
        log_weight = total - beginning.proposal_logprob
        self._ids.append(ids)
        self._totals.append(total)
        self._log_weights.append(log_weight + log_of_number(beginning.num_particles))
        return log_weight

    def close(self, log_weights: list[float], num_particles: int) -> None:
        self._starts.append((log_sum(log_weights), num_particles))

    def filled(self, *, is_exact: bool) -> GapFillings:
        log_total = log_sum(self._log_weights)
        best = np.argsort(-np.array(self._log_weights), kind="stable")[: self._num_fillings]
        fillings = [
            Filling(self._ids[i], exp_of_number(self._log_weights[i] - log_total), self._totals[i])
            for i in best
        ]
        num_particles = sum(num for _, num in self._starts)
        size = None if is_exact else _effective(self._starts, log_total)
        return GapFillings(fillings, log_total - log_of_number(num_particles), size)


def _effective(starts: list[tuple[float, int]], log_total: float) -> float:
    """The effective sample size. Source: Kong (1992)."""
    return 1 / fsum(num * exp_of_number(2 * (log_weight - log_total)) for log_weight, num in starts)


def _sampled(
    gap: Gap, length: int, num_particles: int, seed: int
) -> Generator[None, None, dict[Path, _Beginning]]:
    """Sample beginnings of the gap; beginnings that several particles share are read once."""
    known: dict[Path, _Beginning] = {
        (): _Beginning(state=gap.state, logits_1V=gap.logits_1V, num_particles=num_particles)
    }
    paths: list[Path] = [()] * num_particles
    for position in range(length):
        uniforms_B = _uniforms(seed, num_particles, position)
        size = max(gap.stepper.sizes)
        for first in range(0, num_particles, size):
            some = slice(first, first + size)
            tokens = _drawn([known[path] for path in paths[some]], uniforms_B[some])
            paths[some] = [(*path, id) for path, id in zip(paths[some], tokens, strict=True)]
            yield
        counts = Counter(paths)
        children: dict[Path, _Beginning] = {}
        distinct = list(counts)
        for first in range(0, len(distinct), size):
            children |= _stepped(gap, known, distinct[first : first + size], counts)
            yield
        known = children
    return known


def _uniforms(seed: int, num_particles: int, position: int) -> Floats:
    ones = np.ones(num_particles, dtype=np.uint64)
    particles = np.arange(num_particles, dtype=np.uint64)
    return uniforms(ones * np.uint64(seed), particles, ones * np.uint64(position))


def _drawn(beginnings: Sequence[_Beginning], uniforms_B: Floats) -> list[int]:
    logprobs_BV = logprobs_from(torch.cat([each.logits_1V for each in beginnings]).numpy())
    logprobs_BV[:, END_OF_TEXT_ID] = -np.inf
    ids: list[int] = draw(logprobs_BV, uniforms_B).tolist()
    return ids


def _stepped(
    gap: Gap, known: dict[Path, _Beginning], paths: list[Path], counts: Counter[Path]
) -> dict[Path, _Beginning]:
    """Advance each of these paths by one token."""
    parents = [known[path[:-1]] for path in paths]
    state = concat_rows([parent.state for parent in parents])
    logits_BV, state = gap.stepper.step([path[-1] for path in paths], state)
    found = {}
    for row, (path, parent) in enumerate(zip(paths, parents, strict=True)):
        logprobs_V = logprobs_from(parent.logits_1V.numpy())[0]
        not_ended = log_sum(np.delete(logprobs_V, END_OF_TEXT_ID).tolist())
        found[path] = _Beginning(
            state=state.select_rows([row]),
            logits_1V=logits_BV[row : row + 1],
            logprobs=(*parent.logprobs, float(np.float32(logprobs_V[path[-1]]))),
            proposal_logprob=parent.proposal_logprob + float(logprobs_V[path[-1]]) - not_ended,
            num_particles=counts[path],
        )
    return found


def _leaves(gap: Gap, ids: Path, beginning: _Beginning, depth: int) -> Iterator[Leaves | None]:
    """All fillings with this beginning and their total log-probs; None between batches."""
    if depth == 0:
        rows = [(ids, beginning.logprobs)]
        yield from _with_right(gap, rows, beginning.logits_1V, beginning.state)
        return
    logprobs_V = logprobs_from(beginning.logits_1V.numpy())[0].astype(np.float32).tolist()
    size = max(gap.stepper.sizes)
    for first in range(END_OF_TEXT_ID + 1, gap.vocab_size, size):
        tokens = range(first, min(first + size, gap.vocab_size))
        logits_BV, state = gap.stepper.step(tokens, beginning.state.select_rows([0] * len(tokens)))
        rows = [((*ids, token), (*beginning.logprobs, logprobs_V[token])) for token in tokens]
        if depth == 1:
            yield from _with_right(gap, rows, logits_BV, state)
            continue
        for row, (longer, logprobs) in enumerate(rows):
            child = _Beginning(
                state=state.select_rows([row]),
                logits_1V=logits_BV[row : row + 1],
                logprobs=logprobs,
                num_particles=1,
            )
            yield from _leaves(gap, longer, child, depth - 1)


def _with_right(
    gap: Gap, rows: list[tuple[Path, tuple[float, ...]]], logits_BV: Tensor, state: State
) -> Iterator[Leaves | None]:
    """The log-prob of each row and the right text, summed exactly, as scoring does."""
    sums = [list(logprobs) for _, logprobs in rows]
    most_tokens = min(MAX_TOKENS, MAX_LOGITS // gap.vocab_size)
    length = max(1, most_tokens // len(rows))
    for first in range(0, len(gap.right), length):
        targets = gap.right[first : first + length]
        after_BTV, state = gap.stepper.advance([targets] * len(rows), state)
        pending_BTV = torch.cat([logits_BV[:, None], after_BTV[:, :-1]], dim=1)
        logits_BV = after_BTV[:, -1]
        logprobs_BTV = logprobs_from(pending_BTV.flatten(0, 1).numpy()).reshape(pending_BTV.shape)
        chosen_BT = logprobs_BTV[:, np.arange(len(targets)), targets].astype(np.float32)
        for sum_, chosen_T in zip(sums, chosen_BT.tolist(), strict=True):
            sum_ += chosen_T
        yield None
    yield [(ids, fsum(sum_)) for (ids, _), sum_ in zip(rows, sums, strict=True)]


def log_sum(logs: Sequence[float]) -> float:
    """Log-sum-exp of a list, with an exact sum: a filling's bits must not depend on batches."""
    best = max(logs)
    return best + log_of_number(fsum(exp(np.array(logs) - best).tolist()))
