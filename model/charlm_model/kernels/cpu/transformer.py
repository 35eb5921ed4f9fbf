"""Inference of the Transformer: all tokens of all rows in one call.

Legend: B rows, T tokens, V vocabulary, E width, L layers, N heads, D head width, C ring slots.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from charlm_model.kernels.cpu.attention import HeadRange, attend, normalize, normalized, rotate
from charlm_model.kernels.cpu.barrier_group import (
    add_product_shard,
    clear_shard,
    shard_of,
    wait_at_barrier,
)
from charlm_model.kernels.cpu.bounds_checks import check_positions, check_tokens
from charlm_model.kernels.cpu.elementary import cos_sin_64, in_quadrant
from charlm_model.kernels.cpu.embedding import PackedEmbedding, embed, pack_embedding, update_recent
from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.matmul_tile import PANEL_WIDTH
from charlm_model.kernels.cpu.sampling import sample_rows, workspace_for
from charlm_model.kernels.cpu.simd import (
    LANES,
    lane,
    load,
    maximum,
    multiply,
    splat,
    store,
    to_bfloat16,
)
from charlm_model.kernels.cpu.weights import Floats, Packer, array_of
from charlm_model.layers.embedding import TokenEmbedding

_MAX_ROWS = 256  # multiplied together
_ZERO = np.float32(0)
# Columns of `offsets_L4`: a layer's weights.
_QKV, _ATTENTION_OUT, _UP, _DOWN = range(4)


class TransformerShape(NamedTuple):
    """The sizes that a kernel needs, and the offset of its head's weights."""

    num_layers: int
    num_heads: int
    width: int
    hidden_width: int
    context_length: int
    vocab_size: int
    head: int


class PackedTransformer(NamedTuple):
    """A model's sizes and weights in the layout of its kernels."""

    shape: TransformerShape
    tables: PackedEmbedding
    offsets_L4: NDArray[np.int64]
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
) -> PackedTransformer:
    """`layers` has the products of each layer in the order in which they are applied."""
    packer = Packer()
    tables = pack_embedding(embedding, packer)
    offsets = [[packer.add_panels(array_of(each.weight)) for each in layer] for layer in layers]
    shape = TransformerShape(
        num_layers=len(layers),
        num_heads=num_heads,
        width=head.in_features,
        hidden_width=layers[0][_UP].out_features,
        context_length=context_length,
        vocab_size=head.out_features,
        head=packer.add_panels(array_of(head.weight)),
    )
    offsets_L4 = np.array(offsets, np.int64)
    return PackedTransformer(shape, tables, offsets_L4, packer.packed(), frequencies, epsilon)


@compiled
def advance(
    packed, group, workspace, ids_BT, recent_BK, position_B, keys_BX, values_BX, logits_BTV
):
    """Read T tokens a row: logits after each, and the state in place.

    `keys_BX` and `values_BX` hold each row's rings (L, C / lanes, N, D, lanes) in bfloat16, flat.
    `workspace` has `workspace_size` zeros, which all members of the group share.
    """
    shape = packed.shape
    check_tokens(ids_BT, recent_BK, shape.vocab_size)
    check_positions(position_B)
    B, T = ids_BT.shape
    block = rows_per_block(B, T) // B
    keys, values = keys_BX.reshape(-1), values_BX.reshape(-1)
    num_slots = keys_BX.shape[1] // (shape.num_layers * shape.width)
    work = _split_workspace(shape, num_slots, B * block, group, workspace)
    for first in range(0, T, block):
        length = min(block, T - first)
        _run_block(packed, group, ids_BT, recent_BK, first, length, position_B, keys, values, work)
        _write_logits(shape, group, work[4], first, length, logits_BTV)
        if group.member == 0:
            position_B += length
            if first + length == T:
                update_recent(ids_BT, recent_BK)
        wait_at_barrier(group)


@compiled
def sample(
    packed, group, workspace, draws_B3, recent_BK, position_B, keys_BX, values_BX,
    logits_B1V, ids_BK, logprobs_BK,
):  # fmt: skip
    """Sample several steps: draw a token for every row, feed it, repeat. Updates logits and state.

    `draws_B3` is described at `charlm_model.kernels.cpu.sampling.sample_rows`.
    """
    ids_B1 = np.zeros((len(logits_B1V), 1), np.int64)  # read by the first member alone
    sampling_workspace = workspace_for(packed.shape.vocab_size)
    for step in range(ids_BK.shape[1]):
        if group.member == 0:
            sample_rows(logits_B1V, draws_B3, step, sampling_workspace, ids_B1, ids_BK, logprobs_BK)
        advance(
            packed, group, workspace, ids_B1, recent_BK, position_B, keys_BX, values_BX, logits_B1V
        )


@compiled
def padded_width(width):
    """The width, rounded up to whole panels."""
    return -(-width // PANEL_WIDTH) * PANEL_WIDTH


@compiled
def rows_per_block(num_rows, num_tokens):
    """Rows of the workspace (rows times tokens) that are computed together."""
    return num_rows * max(1, min(num_tokens, _MAX_ROWS // num_rows))


@compiled
def workspace_size(packed, num_members, num_rows, num_tokens):
    """Length of the workspace, in float32."""
    shape = packed.shape
    num_slots = -(-shape.context_length // LANES) * LANES
    total = 0
    for size in _sizes(shape, num_slots, rows_per_block(num_rows, num_tokens), num_members):
        total += size
    return total


@compiled
def _sizes(shape, num_slots, num_rows, num_members):
    """Sizes of the residual stream, queries to values, heads' outputs, hidden layer, logits and
    angles; then of each member's own parts: normalized stream, scores and sums.
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
def _split_workspace(shape, num_slots, num_rows, group, workspace):
    """The workspace, split into the parts that `_sizes` lists; of the members' own, this one's."""
    x, qkv, attended, up, logits, angles, normal, scores, sums = _sizes(
        shape, num_slots, num_rows, 1
    )  # fmt: skip
    qkv_at = x
    mixed_at = qkv_at + qkv
    up_at = mixed_at + attended
    logits_at = up_at + up
    angles_at = logits_at + logits
    normal_at = angles_at + angles + group.member * (normal + scores + sums)
    scores_at = normal_at + normal
    sums_at = scores_at + scores
    return (
        workspace[:x],
        workspace[qkv_at:mixed_at],
        workspace[mixed_at:up_at],
        workspace[up_at:logits_at],
        workspace[logits_at:angles_at],
        workspace[angles_at : angles_at + angles],
        workspace[normal_at:scores_at],
        workspace[scores_at:sums_at],
        workspace[sums_at : sums_at + sums],
    )


@compiled
def _write_logits(shape, group, logits, first, length, logits_BTV):
    """Copy this member's columns of the logits."""
    stride = padded_width(shape.vocab_size)
    start, end = shard_of(group, stride // PANEL_WIDTH)
    for b in range(len(logits_BTV)):
        for t in range(length):
            row = (b * length + t) * stride
            for v in range(start * PANEL_WIDTH, min(end * PANEL_WIDTH, shape.vocab_size)):
                logits_BTV[b, first + t, v] = logits[row + v]


@compiled
def _run_block(packed, group, ids_BT, recent_BK, first, length, position_B, keys, values, work):
    """Run one block of tokens; row b * T + t of the workspace is token t of row b."""
    shape, weights, offsets_L4, epsilon = (
        packed.shape, packed.weights, packed.offsets_L4, packed.epsilon,
    )  # fmt: skip
    B, E = len(ids_BT), shape.width
    width, up_width = padded_width(E), padded_width(shape.hidden_width)
    qkv_width, logits_width = padded_width(3 * E), padded_width(shape.vocab_size)
    x, qkv, attended, up, logits, _, normal, _, _ = work
    num_rows = B * length
    if group.member == 0:
        _embed_block(packed, ids_BT, recent_BK, first, length, position_B, work)
    wait_at_barrier(group)
    for layer in range(shape.num_layers):
        _normalize_rows(x, width, E, epsilon, num_rows, normal)
        clear_shard(group, qkv, num_rows, qkv_width)
        add_product_shard(
            group, normal, 0, width, num_rows, E,
            weights, offsets_L4[layer, _QKV], qkv_width, qkv, 0, qkv_width,
        )  # fmt: skip
        wait_at_barrier(group)
        for b in range(B):
            for t in range(length):
                _attend_token(
                    packed, group, layer, b, b * length + t, position_B[b] + t, keys, values, work
                )  # fmt: skip
        wait_at_barrier(group)
        add_product_shard(
            group, attended, 0, width, num_rows, E,
            weights, offsets_L4[layer, _ATTENTION_OUT], width, x, 0, width,
        )  # fmt: skip
        wait_at_barrier(group)
        _normalize_rows(x, width, E, epsilon, num_rows, normal)
        clear_shard(group, up, num_rows, up_width)
        add_product_shard(
            group, normal, 0, width, num_rows, E,
            weights, offsets_L4[layer, _UP], up_width, up, 0, up_width,
        )  # fmt: skip
        _squared_relu(group, up, num_rows, up_width)
        wait_at_barrier(group)
        add_product_shard(
            group, up, 0, up_width, num_rows, shape.hidden_width,
            weights, offsets_L4[layer, _DOWN], width, x, 0, width,
        )  # fmt: skip
        wait_at_barrier(group)
    _normalize_rows(x, width, E, epsilon, num_rows, normal)
    clear_shard(group, logits, num_rows, logits_width)
    add_product_shard(
        group, normal, 0, width, num_rows, E,
        weights, shape.head, logits_width, logits, 0, logits_width,
    )  # fmt: skip


@compiled
def _embed_block(packed, ids_BT, recent_BK, first, length, position_B, work):
    """Embed and normalize every token; compute cosines and sines of its position."""
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
def _squared_relu(group, up, num_rows, width):
    """Squared ReLU of this member's columns."""
    start, end = shard_of(group, width // PANEL_WIDTH)
    for row in range(num_rows):
        at = row * width
        for column in range(at + start * PANEL_WIDTH, at + end * PANEL_WIDTH, LANES):
            positive = maximum(load(up, column), splat(_ZERO))
            store(up, column, multiply(positive, positive))


@compiled
def _normalize_rows(x, lanes, width, epsilon, num_rows, out):
    for row in range(num_rows):
        normalized(x, row * lanes, lanes, width, epsilon, out, row * lanes)


@compiled
def _attend_token(packed, group, layer, b, row, position, keys, values, work):
    """One token's attention in one layer, for this member's heads: writes its key and value into
    the ring and the heads' outputs into `attended`.
    """
    shape, epsilon = packed.shape, packed.epsilon
    _, qkv, attended, _, _, angles, _, scores, sums = work
    N, E = shape.num_heads, shape.width
    num_slots, D = len(scores) // N, E // N
    half = D // 2
    cosines, sines = angles[row * E : row * E + half], angles[row * E + half : row * E + 2 * half]
    slot = position % num_slots
    ring = (b * shape.num_layers + layer) * E * num_slots
    place = ring + (slot - slot % LANES) * E + slot % LANES
    scale = np.float32(1) / np.float32(math.sqrt(D))
    first, end = shard_of(group, N)
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
            keys[place + (head * D + d) * LANES] = to_bfloat16(qkv[key + d])
            values[place + (head * D + d) * LANES] = to_bfloat16(qkv[value + d])
    attend(
        qkv, start, keys, values, ring, HeadRange(first, end, N, D), position, shape.context_length,
        scores, sums, attended, row * padded_width(E),
    )  # fmt: skip
