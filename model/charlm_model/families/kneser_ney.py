"""Interpolated modified Kneser-Ney smoothing over contexts kept in a trie.

A context of k tokens is a node at depth k; its parent is the context without its oldest token. A
node's key is parent * (V + 1) + oldest token + 1, so keys fit 64 bits at any order and vocabulary.

    p(v | context) = max(c(context, v) - D, 0) / c(context) + backoff(context) p(v | parent)

Counts c are occurrences at the highest order and numbers of distinct predecessors below it;
discounts D1, D2, D3+ come from the counts of counts of each order.

Source: Chen & Goodman (1998).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm_model.text.vocabulary import END_OF_TEXT_ID

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BEFORE_START = -1


@dataclass(frozen=True, slots=True)
class Depth:
    """All contexts of one length. Node n owns entries starts[n] to starts[n + 1]."""

    keys: Ints  # sorted; the position of a key is the number of its node
    starts: Ints
    tokens: Ints  # ascending within a node
    shares: Floats  # the discounted probability of each token in its context
    backoff: Floats  # the probability that each node leaves to its parent

    def check(self, vocab_size: int) -> None:
        """Raises ValueError if the tables are inconsistent."""
        counts, weights = (self.keys, self.starts, self.tokens), (self.shares, self.backoff)
        is_whole = (
            all(each.ndim == 1 and each.dtype == np.int64 for each in counts)
            and all(each.ndim == 1 and each.dtype == np.float64 for each in weights)
            and 0 < len(self.keys) == len(self.backoff) == len(self.starts) - 1
            and len(self.tokens) == len(self.shares) == self.starts[-1]
            and self.starts[0] == 0
            and bool((np.diff(self.starts) >= 0).all() and (np.diff(self.keys) > 0).all())
            and bool(((self.tokens >= 0) & (self.tokens < vocab_size)).all())
            and all(bool(((each >= 0) & (each <= 1)).all()) for each in weights)
        )
        if not is_whole:
            raise ValueError("the tables of contexts are inconsistent")


def fit(ids: Ints, vocab_size: int, order: int) -> list[Depth]:
    """Depths 0 to `order` from a token stream; needs about 100 bytes of memory for each token.

    Contexts do not reach across an end of text.
    """
    targets = ids[1:]
    nodes = np.zeros(len(targets), dtype=np.int64)
    parents: list[Ints] = []
    keys = [np.zeros(1, dtype=np.int64)]
    for oldest in older_tokens(ids[:-1], order):
        depth_keys, nodes = np.unique(nodes * (vocab_size + 1) + oldest + 1, return_inverse=True)
        keys.append(depth_keys)
        parents.append(depth_keys // (vocab_size + 1))
    pairs, counts = np.unique(nodes * vocab_size + targets, return_counts=True)
    depths = []
    for depth in range(order, -1, -1):
        depths.append(_smoothed(keys[depth], pairs, counts, vocab_size))
        if depth:
            shorter = parents[depth - 1][pairs // vocab_size] * vocab_size + pairs % vocab_size
            pairs, counts = np.unique(shorter, return_counts=True)
    return depths[::-1]


def older_tokens(ids: Ints, order: int) -> list[Ints]:
    """For every position the last `order` tokens, newest first, one array for each age.

    BEFORE_START stands for tokens before the text or before an end of text.
    """
    columns = []
    is_outside = np.zeros(len(ids), dtype=bool)
    for age in range(order):
        shifted = np.full(len(ids), BEFORE_START, dtype=np.int64)
        shifted[age:] = ids[: len(ids) - age]
        shifted[is_outside] = BEFORE_START
        is_outside |= shifted == END_OF_TEXT_ID
        columns.append(shifted)
    return columns


def _smoothed(keys: Ints, pairs: Ints, counts: Ints, vocab_size: int) -> Depth:
    nodes, tokens = pairs // vocab_size, pairs % vocab_size
    num_nodes = len(keys)
    totals = np.bincount(nodes, weights=counts, minlength=num_nodes)
    discounts = _discounts(counts)[np.minimum(counts, 3)]
    return Depth(
        keys=keys,
        starts=np.searchsorted(nodes, np.arange(num_nodes + 1)),
        tokens=tokens,
        shares=(counts - discounts) / totals[nodes],
        backoff=np.bincount(nodes, weights=discounts, minlength=num_nodes) / totals,
    )


def _discounts(counts: Ints) -> Floats:
    """D0 = 0, D1, D2 and D3+, clipped away from 0 and from the count, as with few data."""
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float)
    ratio = n1 / max(n1 + 2 * n2, 1)
    raw = [
        1 - 2 * ratio * n2 / max(n1, 1),
        2 - 3 * ratio * n3 / max(n2, 1),
        3 - 4 * ratio * n4 / max(n3, 1),
    ]
    # A discount of 0 would leave no probability to the shorter context, a full one none to this.
    return np.array([0.0, *(np.clip(d, 0.1, k - 0.1) for k, d in enumerate(raw, start=1))])
