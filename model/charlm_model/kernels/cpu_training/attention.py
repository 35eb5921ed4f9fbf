"""Attention in training, forward and backward, over past keys and values and the new ones.

Legend: B batch, L layers, T time, E width, N heads, D head width, C ring slots, P past
positions, S = P + T padded.
"""

from typing import NamedTuple

import numpy as np

from charlm_model.kernels.cpu.elementary import exp, lane_sum
from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.simd import (
    LANES,
    add,
    fma,
    keep_lanes,
    load,
    load_bfloat16,
    multiply,
    splat,
    store,
    subtract,
)
from charlm_model.kernels.cpu.weights import Floats
from charlm_model.kernels.cpu_training.bfloat16 import (
    PANEL_WIDTH,
    BFloat16s,
    put_panel,
    store_bfloat16,
)
from charlm_model.kernels.cpu_training.bfloat16_panels import (
    multiply_rows,
    panels_of_columns,
    panels_of_rows,
    transpose,
)

QUERIES_PER_BLOCK = 8  # queries that use the same panels of keys
_ZERO, _ONE = np.float32(0), np.float32(1)


class AttentionWorkspace(NamedTuple):
    """Buffers that are reused for every head; their padding stays zero."""

    queries: BFloat16s  # (T padded, D), normalized, rotated and scaled
    keys: BFloat16s  # (S, D), normalized and rotated
    values: BFloat16s  # (S, D)
    d_outputs: BFloat16s  # (T padded, D): gradients of a head's outputs
    panels: BFloat16s  # of (S, D) or of its transpose
    scores: Floats  # (QUERIES_PER_BLOCK, S)
    d_scores: BFloat16s  # (T, S)
    transposed: BFloat16s  # (T, T padded)
    sums: Floats  # (T, D padded)
    unrotated: Floats  # (D,)


@compiled
def padded_to_panels(width):
    return -(-width // PANEL_WIDTH) * PANEL_WIDTH


@compiled
def attention_workspace(sizes):
    T, D = sizes.length, sizes.width // sizes.num_heads
    S, wide_T, wide_D = (
        padded_to_panels(sizes.num_past + T),
        padded_to_panels(T),
        padded_to_panels(D),
    )
    return AttentionWorkspace(
        np.zeros(wide_T * D, np.int16),
        np.zeros(S * D, np.int16),
        np.zeros(S * D, np.int16),
        np.zeros(wide_T * D, np.int16),
        np.zeros(S * wide_D, np.int16),
        np.zeros(QUERIES_PER_BLOCK * S, np.float32),
        np.zeros(T * S, np.int16),
        np.zeros(T * wide_T, np.int16),
        np.zeros(T * wide_D, np.float32),
        np.zeros(D, np.float32),
    )


@compiled
def attend(sizes, row, past, qkv, attn_weights, keys, values, heads, workspace):
    """Forward: the heads' outputs (T, E) and the attention weights; fills the new rings.

    The new rings, `keys` and `values`, are separate from those in `past`, which `attend_backward`
    reads again.
    """
    T, E, D = sizes.length, sizes.width, sizes.width // sizes.num_heads
    P, S = sizes.num_past, padded_to_panels(sizes.num_past + T)
    for head in range(sizes.num_heads):
        at = (row * sizes.num_heads + head) * T * S
        _load_queries_and_keys(sizes, row, head, past, qkv, workspace)
        _load_values(sizes, row, head, past, qkv, workspace)
        _write_ring(sizes, row, head, past, workspace.keys, keys)
        _write_ring(sizes, row, head, past, workspace.values, values)
        panels_of_rows(workspace.keys, P + T, D, workspace.panels)
        for first in range(0, T, QUERIES_PER_BLOCK):
            _score(sizes, first, workspace.queries, workspace)
            low, high = _visible_panels(sizes, first)
            for query in range(first, min(first + QUERIES_PER_BLOCK, T)):
                to = at + query * S
                _softmax(
                    sizes, query, past.position[row], low, high, workspace.scores, attn_weights, to
                )
        panels_of_columns(workspace.values, 0, D, S, D, S, workspace.panels)
        _weighted_sums(sizes, attn_weights, at, workspace)
        _write_outputs(workspace.sums, T, D, heads, row * T * E + head * D, E)


@compiled
def attend_backward(sizes, row, past, qkv, attn_weights, d_heads, d_qkv, workspace):
    """Backward: from the gradient of the heads' outputs (T, E) to that of queries, keys, values."""
    T, E, D = sizes.length, sizes.width, sizes.width // sizes.num_heads
    P, S, wide_T = sizes.num_past, padded_to_panels(sizes.num_past + T), padded_to_panels(T)
    for head in range(sizes.num_heads):
        at = (row * sizes.num_heads + head) * T * S
        to = row * T * 3 * E + head * D
        for position in range(T):
            _round_to_bfloat16(
                d_heads, position * E + head * D, D, workspace.d_outputs, position * D
            )
        # Gradient of values: attn_weights^T times the gradient of the outputs.
        transpose(attn_weights, at + P, S, T, T, workspace.transposed, 0, wide_T)
        _transposed_weighted_sums(sizes, workspace.d_outputs, workspace)
        _write_outputs(workspace.sums, T, D, d_qkv, to + 2 * E, 3 * E)
        # Gradient of scores: d_outputs times values^T, then back through the softmax.
        _load_values(sizes, row, head, past, qkv, workspace)
        panels_of_rows(workspace.values, P + T, D, workspace.panels)
        for first in range(0, T, QUERIES_PER_BLOCK):
            _score(sizes, first, workspace.d_outputs, workspace)
            low, high = _visible_panels(sizes, first)
            for query in range(first, min(first + QUERIES_PER_BLOCK, T)):
                _softmax_backward(
                    query,
                    S,
                    low,
                    high,
                    workspace.scores,
                    attn_weights,
                    at + query * S,
                    workspace.d_scores,
                )
        # Gradients of queries and keys: d_scores times keys, d_scores^T times queries.
        _load_queries_and_keys(sizes, row, head, past, qkv, workspace)
        panels_of_columns(workspace.keys, 0, D, S, D, S, workspace.panels)
        _weighted_sums(sizes, workspace.d_scores, 0, workspace)
        _rotate_backward(sizes, row, head, 0, past, qkv, workspace, d_qkv)
        transpose(workspace.d_scores, P, S, T, T, workspace.transposed, 0, wide_T)
        _transposed_weighted_sums(sizes, workspace.queries, workspace)
        _rotate_backward(sizes, row, head, 1, past, qkv, workspace, d_qkv)


@compiled
def scale_of(x, at, width, epsilon):
    """1 / root mean square."""
    squares = splat(_ZERO)
    for n in range(at, at + width, LANES):
        squares = fma(load(x, n), load(x, n), squares)
    return _ONE / np.sqrt(lane_sum(squares) / np.float32(width) + epsilon)


@compiled
def _visible_panels(sizes, first):
    """The range of whole panels with all keys that a block of queries can see."""
    oldest = max(0, sizes.num_past + first - sizes.context_length + 1)
    last = sizes.num_past + min(first + QUERIES_PER_BLOCK, sizes.length)
    return oldest // PANEL_WIDTH * PANEL_WIDTH, padded_to_panels(last)


@compiled
def _score(sizes, first, bfloat16s, workspace):
    """Products of a block of rows with the panels that they can see."""
    D, S = sizes.width // sizes.num_heads, padded_to_panels(sizes.num_past + sizes.length)
    low, high = _visible_panels(sizes, first)
    for column in range(low, high, PANEL_WIDTH):
        put_panel(
            bfloat16s, first * D, D, min(QUERIES_PER_BLOCK, sizes.length - first), D,
            workspace.panels, column * D, workspace.scores, column, S,
        )  # fmt: skip


@compiled
def _weighted_sums(sizes, weights, at, workspace):
    """Weights (T, S) times the panels that each query can see."""
    T, D = sizes.length, sizes.width // sizes.num_heads
    S, wide_D = padded_to_panels(sizes.num_past + T), padded_to_panels(D)
    for first in range(0, T, QUERIES_PER_BLOCK):
        low, high = _visible_panels(sizes, first)
        for column in range(0, wide_D, PANEL_WIDTH):
            put_panel(
                weights, at + first * S + low, S, min(QUERIES_PER_BLOCK, T - first), high - low,
                workspace.panels, column * S + low * PANEL_WIDTH,
                workspace.sums, first * wide_D + column, wide_D,
            )  # fmt: skip


@compiled
def _transposed_weighted_sums(sizes, bfloat16s, workspace):
    """`transposed` times a matrix (T padded, D)."""
    T, D = sizes.length, sizes.width // sizes.num_heads
    wide_T, wide_D = padded_to_panels(T), padded_to_panels(D)
    panels_of_columns(bfloat16s, 0, D, wide_T, D, wide_T, workspace.panels)
    multiply_rows(
        workspace.transposed,
        0,
        wide_T,
        T,
        wide_T,
        workspace.panels,
        wide_D,
        workspace.sums,
        0,
        wide_D,
    )


@compiled
def _load_queries_and_keys(sizes, row, head, past, qkv, workspace):
    """Load one head's queries and keys, normalized and rotated; past keys precede the new ones."""
    T, E, D = sizes.length, sizes.width, sizes.width // sizes.num_heads
    P, scale = sizes.num_past, _ONE / np.sqrt(np.float32(D))
    _read_ring(sizes, row, head, past, past.keys, workspace.keys)
    for position in range(T):
        at, angle = (row * T + position) * 3 * E + head * D, (row * T + position) * (D // 2)
        of_query = scale_of(qkv, at, D, sizes.epsilon) * scale
        _rotate(qkv, at, D, of_query, past, angle, workspace.queries, position * D)
        of_key = scale_of(qkv, at + E, D, sizes.epsilon)
        _rotate(qkv, at + E, D, of_key, past, angle, workspace.keys, (P + position) * D)


@compiled
def _load_values(sizes, row, head, past, qkv, workspace):
    T, E, D = sizes.length, sizes.width, sizes.width // sizes.num_heads
    P = sizes.num_past
    _read_ring(sizes, row, head, past, past.values, workspace.values)
    for position in range(T):
        at = (row * T + position) * 3 * E + 2 * E + head * D
        _round_to_bfloat16(qkv, at, D, workspace.values, (P + position) * D)


@compiled
def _ring_offset(sizes, row, head, position):
    """Offset of a head's numbers of a position in a ring (B, L, C / lanes, N, D, lanes)."""
    E, D = sizes.width, sizes.width // sizes.num_heads
    slot = position % sizes.num_slots
    ring = (row * sizes.num_layers + sizes.layer) * sizes.num_slots * E
    return ring + (slot - slot % LANES) * E + head * D * LANES + slot % LANES


@compiled
def _read_ring(sizes, row, head, past, ring, out):
    """Read the last P positions before the window (P, D); undefined where the text is shorter."""
    D, P = sizes.width // sizes.num_heads, sizes.num_past
    done = 0
    while done < P:
        position = past.position[row] - P + done
        num = min(LANES - position % LANES, P - done)
        place = _ring_offset(sizes, row, head, position)
        transpose(ring, place, LANES, D, num, out, done * D, D)
        done += num


@compiled
def _write_ring(sizes, row, head, past, bfloat16s, ring):
    """Write the window's last positions, which follow the past ones, into the ring's slots."""
    D, T = sizes.width // sizes.num_heads, sizes.length
    done = max(0, T - sizes.num_slots)
    while done < T:
        position = past.position[row] + done
        num = min(LANES - position % LANES, T - done)
        place = _ring_offset(sizes, row, head, position)
        transpose(bfloat16s, (sizes.num_past + done) * D, D, num, D, ring, place, LANES)
        done += num


@compiled
def _round_to_bfloat16(source, source_at, num, target, target_at):
    for n in range(0, num, LANES):
        store_bfloat16(target, target_at + n, load(source, source_at + n))


@compiled
def _write_outputs(sums, T, D, out, at, stride):
    for position in range(T):
        _round_to_bfloat16(sums, position * padded_to_panels(D), D, out, at + position * stride)


@compiled
def _rotate(x, at, D, scale, past, angle, out, out_at):
    """Scale, then rotate pairs of numbers by the angles. The last vectors may overlap."""
    half = D // 2
    for start in range(0, half, LANES):
        n = min(start, half - LANES)
        a = multiply(load(x, at + n), splat(scale))
        b = multiply(load(x, at + half + n), splat(scale))
        cosine, sine = load(past.cosine, angle + n), load(past.sine, angle + n)
        store_bfloat16(out, out_at + n, subtract(multiply(a, cosine), multiply(b, sine)))
        store_bfloat16(out, out_at + half + n, fma(a, sine, multiply(b, cosine)))


@compiled
def _rotate_backward(sizes, row, head, part, past, qkv, workspace, d_qkv):
    """`sums` holds the gradients of rotated queries (part 0) or keys (part 1)."""
    T, E, D = sizes.length, sizes.width, sizes.width // sizes.num_heads
    half, wide_D, unrotated = D // 2, padded_to_panels(D), workspace.unrotated
    factor = splat(_ONE / np.sqrt(np.float32(D)) if part == 0 else _ONE)
    for position in range(T):
        at = (row * T + position) * 3 * E + part * E + head * D
        angle, of = (row * T + position) * half, position * wide_D
        for start in range(0, half, LANES):
            n = min(start, half - LANES)
            cosine = multiply(load(past.cosine, angle + n), factor)
            sine = multiply(load(past.sine, angle + n), factor)
            a, b = load(workspace.sums, of + n), load(workspace.sums, of + half + n)
            store(unrotated, n, fma(a, cosine, multiply(b, sine)))
            store(unrotated, half + n, subtract(multiply(b, cosine), multiply(a, sine)))
        scale = scale_of(qkv, at, D, sizes.epsilon)
        along = splat(_ZERO)
        for d in range(0, D, LANES):
            along = fma(load(unrotated, d), load(qkv, at + d), along)
        pull = splat(-lane_sum(along) * scale * scale * scale / np.float32(D))
        for d in range(0, D, LANES):
            direct = multiply(splat(scale), load(unrotated, d))
            store_bfloat16(d_qkv, at + d, fma(pull, load(qkv, at + d), direct))


@compiled
def _softmax(sizes, query, position, low, high, scores, attn_weights, to):
    """Softmax over the visible keys of a query; 0 for all others.

    Queries and keys are normalized, so scores are at most sqrt(D), and e^score does not overflow.
    """
    now = sizes.num_past + query
    at = query % QUERIES_PER_BLOCK * padded_to_panels(sizes.num_past + sizes.length)
    first = max(now - sizes.context_length + 1, sizes.num_past - position, 0)
    total = splat(_ZERO)
    for key in range(low, high, LANES):
        weight = keep_lanes(exp(load(scores, at + key)), key, first, now)
        store(scores, at + key, weight)
        total = add(total, weight)
    scale = splat(_ONE / lane_sum(total))
    for key in range(low, high, LANES):
        store_bfloat16(attn_weights, to + key, multiply(load(scores, at + key), scale))


@compiled
def _softmax_backward(query, S, low, high, d_attn_weights, attn_weights, weights_at, d_scores):
    """From the gradient of the weights to that of the scores; 0 for keys outside the panels."""
    at, to = query % QUERIES_PER_BLOCK * S, query * S
    for key in range(0, S, LANES):
        store_bfloat16(d_scores, to + key, splat(_ZERO))
    along = splat(_ZERO)
    for key in range(low, high, LANES):
        along = fma(
            load(d_attn_weights, at + key), load_bfloat16(attn_weights, weights_at + key), along
        )
    mean = splat(lane_sum(along))
    for key in range(low, high, LANES):
        weight = load_bfloat16(attn_weights, weights_at + key)
        d_score = multiply(weight, subtract(load(d_attn_weights, at + key), mean))
        store_bfloat16(d_scores, to + key, d_score)
