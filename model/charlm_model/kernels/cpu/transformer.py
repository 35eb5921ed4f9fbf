"""The Transformer, compiled: all tokens of all rows in one call.

Legend: B rows, T tokens, V vocabulary, E width, L layers, N heads, D head width, C ring slots.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from charlm_model.kernels.cpu.attention import Heads, attend, normalize, normalized, rotate
from charlm_model.kernels.cpu.barrier_group import add_share, clear_share, meet, share_of
from charlm_model.kernels.cpu.bounds_checks import check_positions, check_tokens
from charlm_model.kernels.cpu.elementary import cos_sin_64, in_quadrant
from charlm_model.kernels.cpu.embedding import Tables, embed, pack_tables, remember
from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.matmul_tile import PANEL_WIDTH
from charlm_model.kernels.cpu.sampling import room_for, sample_rows
from charlm_model.kernels.cpu.simd import (
    LANES,
    lane,
    larger,
    load,
    multiply,
    splat,
    store,
    upper_half,
)
from charlm_model.kernels.cpu.weights import Floats, Packer, array_of
from charlm_model.layers.embedding import TokenEmbedding

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
def advance(packed, crew, room, ids_BT, recent_BK, position_B, keys_BX, values_BX, logits_BTV):
    """Read T tokens a row: logits after each, and the state in place.

    `keys_BX` and `values_BX` have each row's rings (L, C / lanes, N, D, lanes), bfloat16, flat.
    `room` has as many zeros as `room_size` tells; the members of a crew share it.
    """
    shape = packed.shape
    check_tokens(ids_BT, recent_BK, shape.vocab_size)
    check_positions(position_B)
    B, T = ids_BT.shape
    block = rows_together(B, T) // B
    keys, values = keys_BX.reshape(-1), values_BX.reshape(-1)
    num_slots = keys_BX.shape[1] // (shape.num_layers * shape.width)
    work = _parts(shape, num_slots, B * block, crew, room)
    for first in range(0, T, block):
        length = min(block, T - first)
        _read_block(packed, crew, ids_BT, recent_BK, first, length, position_B, keys, values, work)
        _tell_logits(shape, crew, work[4], first, length, logits_BTV)
        if crew.member == 0:
            position_B += length
            if first + length == T:
                remember(ids_BT, recent_BK)
        meet(crew)


@compiled
def sample(
    packed, crew, room, draws_B3, recent_BK, position_B, keys_BX, values_BX,
    logits_B1V, ids_BK, logprobs_BK,
):  # fmt: skip
    """A burst: draw a token for every row, feed it, and again; `logits_B1V` and the state in place.

    `draws_B3` is what `charlm_model.kernels.cpu.sampling.sample_rows` takes.
    """
    ids_B1 = np.zeros((len(logits_B1V), 1), np.int64)  # the first member alone looks at them
    sampling_room = room_for(packed.shape.vocab_size)
    for step in range(ids_BK.shape[1]):
        if crew.member == 0:
            sample_rows(logits_B1V, draws_B3, step, sampling_room, ids_B1, ids_BK, logprobs_BK)
        advance(packed, crew, room, ids_B1, recent_BK, position_B, keys_BX, values_BX, logits_B1V)


@compiled
def padded_width(width):
    """Whole panels."""
    return -(-width // PANEL_WIDTH) * PANEL_WIDTH


@compiled
def rows_together(num_rows, num_tokens):
    """How many rows of the workspace a block of tokens takes."""
    return num_rows * max(1, min(num_tokens, _MAX_ROWS // num_rows))


@compiled
def room_size(packed, num_members, num_rows, num_tokens):
    """How many numbers the kernels work in."""
    shape = packed.shape
    num_slots = -(-shape.context_length // LANES) * LANES
    total = 0
    for size in _sizes(shape, num_slots, rows_together(num_rows, num_tokens), num_members):
        total += size
    return total


@compiled
def _sizes(shape, num_slots, num_rows, num_members):
    """Of the stream, queries to values, the heads' answers, the hidden layer, logits, cosines and
    sines; and of what each member has alone: its normalized stream, scores and sums.
    """
    width = padded_width(shape.width)
    return (
        num_rows * width,
        num_rows * padded_width(3 * shape.width),
        num_rows * width,
        num_rows * padded_width(shape.hidden_width),
        num_rows * padded_width(shape.vocab_size),
        num_rows * width,
        num_members * num_rows * width,
        num_members * shape.num_heads * num_slots,
        num_members * shape.width * LANES // 2,
    )


@compiled
def _parts(shape, num_slots, num_rows, crew, room):
    """The room cut to those sizes; of what members have alone, this one's."""
    x, qkv, mixed, up, logits, angles, normal, scores, sums = _sizes(
        shape, num_slots, num_rows, 1
    )  # fmt: skip
    qkv_at = x
    mixed_at = qkv_at + qkv
    up_at = mixed_at + mixed
    logits_at = up_at + up
    angles_at = logits_at + logits
    normal_at = angles_at + angles + crew.member * (normal + scores + sums)
    scores_at = normal_at + normal
    sums_at = scores_at + scores
    return (
        room[:x],
        room[qkv_at:mixed_at],
        room[mixed_at:up_at],
        room[up_at:logits_at],
        room[logits_at:angles_at],
        room[angles_at : angles_at + angles],
        room[normal_at:scores_at],
        room[scores_at:sums_at],
        room[sums_at : sums_at + sums],
    )


@compiled
def _tell_logits(shape, crew, logits, first, length, logits_BTV):
    """This member's columns."""
    stride = padded_width(shape.vocab_size)
    start, end = share_of(crew, stride // PANEL_WIDTH)
    for b in range(len(logits_BTV)):
        for t in range(length):
            row = (b * length + t) * stride
            for v in range(start * PANEL_WIDTH, min(end * PANEL_WIDTH, shape.vocab_size)):
                logits_BTV[b, first + t, v] = logits[row + v]


@compiled
def _read_block(packed, crew, ids_BT, recent_BK, first, length, position_B, keys, values, work):
    """Rows of the workspace lie row by row: row b * T + t."""
    shape, weights, places_L4, epsilon = (
        packed.shape, packed.weights, packed.places_L4, packed.epsilon,
    )  # fmt: skip
    B, E = len(ids_BT), shape.width
    width, up_width = padded_width(E), padded_width(shape.hidden_width)
    qkv_width, logits_width = padded_width(3 * E), padded_width(shape.vocab_size)
    x, qkv, mixed, up, logits, _, normal, _, _ = work
    num_rows = B * length
    if crew.member == 0:
        _begin(packed, ids_BT, recent_BK, first, length, position_B, work)
    meet(crew)
    for layer in range(shape.num_layers):
        _normalize_rows(x, width, E, epsilon, num_rows, normal)
        clear_share(crew, qkv, num_rows, qkv_width)
        add_share(
            crew, normal, 0, width, num_rows, E,
            weights, places_L4[layer, _QKV], qkv_width, qkv, 0, qkv_width,
        )  # fmt: skip
        meet(crew)
        for b in range(B):
            for t in range(length):
                _look_back(
                    packed, crew, layer, b, b * length + t, position_B[b] + t, keys, values, work
                )  # fmt: skip
        meet(crew)
        add_share(
            crew, mixed, 0, width, num_rows, E,
            weights, places_L4[layer, _ATTENTION_OUT], width, x, 0, width,
        )  # fmt: skip
        meet(crew)
        _normalize_rows(x, width, E, epsilon, num_rows, normal)
        clear_share(crew, up, num_rows, up_width)
        add_share(
            crew, normal, 0, width, num_rows, E,
            weights, places_L4[layer, _UP], up_width, up, 0, up_width,
        )  # fmt: skip
        _square_positive(crew, up, num_rows, up_width)
        meet(crew)
        add_share(
            crew, up, 0, up_width, num_rows, shape.hidden_width,
            weights, places_L4[layer, _DOWN], width, x, 0, width,
        )  # fmt: skip
        meet(crew)
    _normalize_rows(x, width, E, epsilon, num_rows, normal)
    clear_share(crew, logits, num_rows, logits_width)
    add_share(
        crew, normal, 0, width, num_rows, E,
        weights, shape.head, logits_width, logits, 0, logits_width,
    )  # fmt: skip


@compiled
def _begin(packed, ids_BT, recent_BK, first, length, position_B, work):
    """The stream of every row at its beginning, and the angles of its position."""
    shape, epsilon = packed.shape, packed.epsilon
    E, width = shape.width, padded_width(shape.width)
    x, angles = work[0], work[5]
    half = E // shape.num_heads // 2
    for b in range(len(ids_BT)):
        for t in range(length):
            row = b * length + t
            embed(packed.tables, packed.weights, ids_BT[b], recent_BK[b], first + t, x, row * width)
            normalized(x, row * width, width, E, epsilon, x, row * width)
            for i in range(half):
                angle = (position_B[b] + t) * packed.frequencies[i]
                turns, c, s = cos_sin_64(splat(angle))
                cosine, sine = in_quadrant(lane(turns, 0), lane(c, 0), lane(s, 0))
                angles[row * E + i] = cosine
                angles[row * E + half + i] = sine


@compiled
def _square_positive(crew, up, num_rows, width):
    """Squared ReLU of this member's columns."""
    start, end = share_of(crew, width // PANEL_WIDTH)
    for row in range(num_rows):
        at = row * width
        for column in range(at + start * PANEL_WIDTH, at + end * PANEL_WIDTH, LANES):
            positive = larger(load(up, column), splat(_ZERO))
            store(up, column, multiply(positive, positive))


@compiled
def _normalize_rows(x, lanes, width, epsilon, num_rows, out):
    for row in range(num_rows):
        normalized(x, row * lanes, lanes, width, epsilon, out, row * lanes)


@compiled
def _look_back(packed, crew, layer, b, row, position, keys, values, work):
    """One token's attention in one layer, by this member's heads: its key and value enter the ring,
    its answer `mixed`.
    """
    shape, epsilon = packed.shape, packed.epsilon
    _, qkv, mixed, _, _, angles, _, scores, sums = work
    N, E = shape.num_heads, shape.width
    num_slots, D = len(scores) // N, E // N
    half = D // 2
    cosines, sines = angles[row * E : row * E + half], angles[row * E + half : row * E + 2 * half]
    slot = position % num_slots
    ring = (b * shape.num_layers + layer) * E * num_slots
    place = ring + (slot - slot % LANES) * E + slot % LANES
    scale = np.float32(1) / np.float32(math.sqrt(D))
    first, end = share_of(crew, N)
    start = row * padded_width(3 * E)
    for head in range(first, end):
        query = start + head * D
        key, value = query + E, query + 2 * E
        normalize(qkv, query, D, epsilon)
        normalize(qkv, key, D, epsilon)
        rotate(qkv, query, half, cosines, sines)
        rotate(qkv, key, half, cosines, sines)
        for d in range(D):
            qkv[query + d] *= scale
            keys[place + (head * D + d) * LANES] = upper_half(qkv[key + d])
            values[place + (head * D + d) * LANES] = upper_half(qkv[value + d])
    attend(
        qkv, start, keys, values, ring, Heads(first, end, N, D), position, shape.context_length,
        scores, sums, mixed, row * padded_width(E),
    )  # fmt: skip
