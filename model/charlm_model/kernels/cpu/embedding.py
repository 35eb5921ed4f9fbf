"""The input of the first layer: the token's vector, plus those of the tokens before it.

Legend: B rows, T tokens, K recent tokens, V vocabulary, E width.
"""

from typing import NamedTuple

import numpy as np

from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.weights import Packer, array_of
from charlm_model.layers.embedding import NO_TOKEN, TokenEmbedding

NONE = NO_TOKEN


class PackedEmbedding(NamedTuple):
    """Offsets of an embedding's tables among the weights, and their sizes."""

    tokens: int
    earlier: int
    pairs: int
    vocab_size: int
    width: int
    kernel_size: int
    pair_rows: int


def pack_embedding(embedding: TokenEmbedding, packer: Packer) -> PackedEmbedding:
    tokens_VE = array_of(embedding.weight)
    return PackedEmbedding(
        tokens=packer.add(tokens_VE),
        earlier=packer.add(array_of(embedding.earlier)) if embedding.kernel_size > 1 else 0,
        pairs=packer.add(array_of(embedding.pairs)) if embedding.pair_rows else 0,
        vocab_size=tokens_VE.shape[0],
        width=tokens_VE.shape[1],
        kernel_size=embedding.kernel_size,
        pair_rows=embedding.pair_rows,
    )


@compiled
def embed(tables, weights, ids_T, recent_K, t, x, at):
    """Write the input vector of token t of a row into x at offset `at`."""
    width, vocab_size = tables.width, tables.vocab_size
    token = ids_T[t]
    row = tables.tokens + token * width
    for e in range(width):
        x[at + e] = weights[row + e]
    for age in range(1, tables.kernel_size):
        earlier = token_at(ids_T, recent_K, t - age)
        if earlier != NONE:
            row = tables.earlier + ((age - 1) * vocab_size + earlier) * width
            for e in range(width):
                x[at + e] += weights[row + e]
    if tables.pair_rows:
        before = token_at(ids_T, recent_K, t - 1)
        if before != NONE:
            row = tables.pairs + ((before * vocab_size + token) % tables.pair_rows) * width
            for e in range(width):
                x[at + e] += weights[row + e]


@compiled
def token_at(ids_T, recent_K, t):
    """The token at index t of the row; negative indices are the recent tokens of the state."""
    return ids_T[t] if t >= 0 else recent_K[len(recent_K) + t]


@compiled
def update_recent(ids_BT, recent_BK):
    """Move each row's newest tokens into its state."""
    num_recent = recent_BK.shape[1]
    length = ids_BT.shape[1]
    newest_K = np.empty(num_recent, np.int64)
    for b in range(len(ids_BT)):
        for k in range(num_recent):
            newest_K[k] = token_at(ids_BT[b], recent_BK[b], length - num_recent + k)
        recent_BK[b] = newest_K
