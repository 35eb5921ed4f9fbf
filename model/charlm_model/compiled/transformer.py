"""The Transformer, compiled: all tokens of all rows in one call.

Legend: B rows, T tokens, V vocabulary, E width, L layers, N heads, D head width, C ring slots.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from charlm_model.compiled.attention import attend, normalize, normalized, rotate
from charlm_model.compiled.build import compiled
from charlm_model.compiled.checks import check_positions, check_tokens
from charlm_model.compiled.embedding import Tables, embed, pack_tables, remember
from charlm_model.compiled.product import add_product
from charlm_model.compiled.sampling import room_for, sample_rows
from charlm_model.compiled.vectors import (
    LANES,
    larger,
    load,
    multiply,
    splat,
    store,
    upper_half,
)
from charlm_model.compiled.weights import Floats, Packer, array_of
from charlm_model.embedding import TokenEmbedding

_MAX_ROWS = 256  # that are multiplied at once
_ZERO = np.float32(0)
# A layer's weights, in the columns of `places_L4`.
_QKV, _ATTENTION_OUT, _UP, _DOWN = range(4)


class Shape(NamedTuple):
    """The sizes that a kernel is run with, and where its head's weights are."""

    num_layers: int
    num_heads: int
    width: int
    hidden_width: int
    context_length: int
    vocab_size: int
    head: int


class Packed(NamedTuple):
    """Everything about a model that its kernels need."""

    shape: Shape
    tables: Tables
    places_L4: NDArray[np.int64]
    weights: Floats
    frequencies: NDArray[np.float64]
    epsilon: float


def pack(
    embedding: TokenEmbedding,
    layers: Sequence[Sequence[nn.Linear]],
    head: nn.Linear,
    *,
    num_heads: int,
    context_length: int,
    frequencies: NDArray[np.float64],
    epsilon: float,
) -> Packed:
    """`layers` has each layer's products in the order in which they act."""
    packer = Packer()
    tables = pack_tables(embedding, packer)
    places = [[packer.add_panels(array_of(each.weight)) for each in layer] for layer in layers]
    shape = Shape(
        num_layers=len(layers),
        num_heads=num_heads,
        width=head.in_features,
        hidden_width=layers[0][_UP].out_features,
        context_length=context_length,
        vocab_size=head.out_features,
        head=packer.add_panels(array_of(head.weight)),
    )
    places_L4 = np.array(places, np.int64)
    return Packed(shape, tables, places_L4, packer.packed(), frequencies, epsilon)


@compiled
def advance(packed, ids_BT, recent_BK, position_B, keys_BX, values_BX, logits_BTV):
    """Read T tokens a row: logits after each, and the state in place.

    `keys_BX` and `values_BX` have each row's rings (L, N, C / lanes, D, lanes), bfloat16, flat.
    """
    shape = packed.shape
    check_tokens(ids_BT, recent_BK, shape.vocab_size)
    check_positions(position_B)
    B, T = ids_BT.shape
    block = max(1, min(T, _MAX_ROWS // B))
    keys, values = keys_BX.reshape(-1), values_BX.reshape(-1)
    work = _workspace(shape, keys_BX.shape[1] // (shape.num_layers * shape.width), B * block)
    logits = work[4]
    stride = padded_width(shape.vocab_size)
    for first in range(0, T, block):
        length = min(block, T - first)
        _read_block(packed, ids_BT, recent_BK, first, length, position_B, keys, values, work)
        for b in range(B):
            for t in range(length):
                row = (b * length + t) * stride
                for v in range(shape.vocab_size):
                    logits_BTV[b, first + t, v] = logits[row + v]
            position_B[b] += length
    remember(ids_BT, recent_BK)


@compiled
def sample(
    packed, draws_B3, recent_BK, position_B, keys_BX, values_BX, logits_B1V, ids_BK, logprobs_BK
):
    """A burst: draw a token for every row, feed it, and again; `logits_B1V` and the state in place.

    `draws_B3` is what `charlm_model.compiled.sampling.sample_rows` takes.
    """
    ids_B1 = np.empty((len(logits_B1V), 1), np.int64)
    room = room_for(packed.shape.vocab_size)
    for step in range(ids_BK.shape[1]):
        sample_rows(logits_B1V, draws_B3, step, room, ids_B1, ids_BK, logprobs_BK)
        advance(packed, ids_B1, recent_BK, position_B, keys_BX, values_BX, logits_B1V)


@compiled
def padded_width(width):
    """Whole panels."""
    return -(-width // 32) * 32


@compiled
def _workspace(shape, num_slots, num_rows):
    """Room for the stream, its normalized copy, queries to values, the hidden layer, logits ..."""
    width = padded_width(shape.width)
    return (
        np.zeros(num_rows * width, np.float32),
        np.zeros(num_rows * width, np.float32),
        np.zeros(num_rows * padded_width(3 * shape.width), np.float32),
        np.zeros(num_rows * padded_width(shape.hidden_width), np.float32),
        np.zeros(num_rows * padded_width(shape.vocab_size), np.float32),
        np.zeros(num_slots, np.float32),
        np.zeros(shape.width // shape.num_heads * LANES, np.float32),
        np.zeros(num_rows * shape.width, np.float32),  # ... and cosines and sines of each row
    )


@compiled
def _read_block(packed, ids_BT, recent_BK, first, length, position_B, keys, values, work):
    """Rows of the workspace lie row by row: row b * T + t."""
    shape, weights, places_L4, epsilon = (
        packed.shape, packed.weights, packed.places_L4, packed.epsilon,
    )  # fmt: skip
    B, E = len(ids_BT), shape.width
    width, up_width = padded_width(E), padded_width(shape.hidden_width)
    qkv_width, logits_width = padded_width(3 * E), padded_width(shape.vocab_size)
    x, normal, qkv, up, logits, _, _, angles = work
    num_rows = B * length
    half = E // shape.num_heads // 2
    for b in range(B):
        for t in range(length):
            row = b * length + t
            embed(packed.tables, weights, ids_BT[b], recent_BK[b], first + t, x, row * width)
            normalized(x, row * width, width, E, epsilon, x, row * width)
            for i in range(half):
                angle = (position_B[b] + t) * packed.frequencies[i]
                angles[row * E + i] = math.cos(angle)
                angles[row * E + half + i] = math.sin(angle)
    for layer in range(shape.num_layers):
        _normalize_rows(x, width, E, epsilon, num_rows, normal)
        qkv[: num_rows * qkv_width] = _ZERO
        add_product(
            normal, 0, width, num_rows, E,
            weights, places_L4[layer, _QKV], qkv_width, qkv, 0, qkv_width,
        )  # fmt: skip
        for b in range(B):
            for t in range(length):
                _look_back(packed, layer, b, b * length + t, position_B[b] + t, keys, values, work)
        add_product(
            normal, 0, width, num_rows, E,
            weights, places_L4[layer, _ATTENTION_OUT], width, x, 0, width,
        )  # fmt: skip
        _normalize_rows(x, width, E, epsilon, num_rows, normal)
        up[: num_rows * up_width] = _ZERO
        add_product(
            normal, 0, width, num_rows, E,
            weights, places_L4[layer, _UP], up_width, up, 0, up_width,
        )  # fmt: skip
        for at in range(0, num_rows * up_width, LANES):
            positive = larger(load(up, at), splat(_ZERO))
            store(up, at, multiply(positive, positive))
        add_product(
            up, 0, up_width, num_rows, shape.hidden_width,
            weights, places_L4[layer, _DOWN], width, x, 0, width,
        )  # fmt: skip
    _normalize_rows(x, width, E, epsilon, num_rows, normal)
    logits[: num_rows * logits_width] = _ZERO
    add_product(
        normal, 0, width, num_rows, E, weights, shape.head, logits_width, logits, 0, logits_width,
    )  # fmt: skip


@compiled
def _normalize_rows(x, lanes, width, epsilon, num_rows, out):
    for row in range(num_rows):
        normalized(x, row * lanes, lanes, width, epsilon, out, row * lanes)


@compiled
def _look_back(packed, layer, b, row, position, keys, values, work):
    """One token's attention in one layer: its key and value enter the ring, its answer `normal`."""
    shape, epsilon = packed.shape, packed.epsilon
    _, normal, qkv, _, _, scores, sums, angles = work
    N, E, num_slots = shape.num_heads, shape.width, len(scores)
    D = E // N
    half = D // 2
    cosines, sines = angles[row * E : row * E + half], angles[row * E + half : row * E + 2 * half]
    slot = position % num_slots
    place = (slot - slot % LANES) * D + slot % LANES
    scale = np.float32(1) / np.float32(math.sqrt(D))
    first = (b * shape.num_layers + layer) * E * num_slots
    for head in range(N):
        query = row * padded_width(3 * E) + head * D
        key, value = query + E, query + 2 * E
        ring = first + head * D * num_slots
        normalize(qkv, query, D, epsilon)
        normalize(qkv, key, D, epsilon)
        rotate(qkv, query, half, cosines, sines)
        rotate(qkv, key, half, cosines, sines)
        for d in range(D):
            qkv[query + d] *= scale
            keys[ring + place + d * LANES] = upper_half(qkv[key + d])
            values[ring + place + d * LANES] = upper_half(qkv[value + d])
        after = ring + D * num_slots if head + 1 < N else first + shape.num_layers * E * num_slots
        attend(
            qkv, query, keys, values, ring, after, D, position, shape.context_length,
            scores, sums, normal, row * padded_width(E) + head * D,
        )  # fmt: skip
