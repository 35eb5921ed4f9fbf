"""Attention of one row in training: keys and values of the past and of the row itself.

Legend: B batch, L layers, T time, E width, N heads, D head width, C ring slots, P remembered
positions, S = P + T padded.
"""

from typing import NamedTuple

import numpy as np

from charlm_model.kernels.cpu.elementary import exp, lane_sum
from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.simd import (
    LANES,
    add,
    between,
    fma,
    load,
    load_halves,
    multiply,
    splat,
    store,
    subtract,
)
from charlm_model.kernels.cpu.weights import Floats
from charlm_model.kernels.cpu_training.bfloat16 import PANEL_WIDTH, Halves, put_panel, store_halves
from charlm_model.kernels.cpu_training.bfloat16_panels import (
    multiply_rows,
    panels_of_columns,
    panels_of_rows,
    turn,
)

TOGETHER = 8  # queries that share the part of the keys which they may see
_ZERO, _ONE = np.float32(0), np.float32(1)


class Room(NamedTuple):
    """Reused from head to head; what is padded stays zero."""

    queries: Halves  # (T padded, D), normalized, rotated and scaled
    keys: Halves  # (S, D), normalized and rotated
    values: Halves  # (S, D)
    answers: Halves  # (T padded, D): gradients of what a head answers
    panels: Halves  # of S by D, either way
    scores: Floats  # (TOGETHER, S)
    slopes: Halves  # (T, S)
    turned: Halves  # (T, T padded)
    mixed: Floats  # (T, D padded)
    turned_back: Floats  # (D,)


@compiled
def padded_to_panels(width):
    return -(-width // PANEL_WIDTH) * PANEL_WIDTH


@compiled
def room_to_attend(sizes):
    T, D = sizes.length, sizes.width // sizes.num_heads
    S, wide_T, wide_D = (
        padded_to_panels(sizes.num_past + T),
        padded_to_panels(T),
        padded_to_panels(D),
    )
    return Room(
        np.zeros(wide_T * D, np.int16),
        np.zeros(S * D, np.int16),
        np.zeros(S * D, np.int16),
        np.zeros(wide_T * D, np.int16),
        np.zeros(S * wide_D, np.int16),
        np.zeros(TOGETHER * S, np.float32),
        np.zeros(T * S, np.int16),
        np.zeros(T * wide_T, np.int16),
        np.zeros(T * wide_D, np.float32),
        np.zeros(D, np.float32),
    )


@compiled
def attend(sizes, row, past, qkv, shares, keys, values, heads, room):
    """What the heads answer (T, E) and the shares of attention; writes into rings after the window.

    Those rings, `keys` and `values`, are not the ones of the past, which `attend_back` reads again.
    """
    T, E, D = sizes.length, sizes.width, sizes.width // sizes.num_heads
    P, S = sizes.num_past, padded_to_panels(sizes.num_past + T)
    for head in range(sizes.num_heads):
        at = (row * sizes.num_heads + head) * T * S
        _bring_queries_and_keys(sizes, row, head, past, qkv, room)
        _bring_values(sizes, row, head, past, qkv, room)
        _remember(sizes, row, head, past, room.keys, keys)
        _remember(sizes, row, head, past, room.values, values)
        panels_of_rows(room.keys, P + T, D, room.panels)
        for first in range(0, T, TOGETHER):
            _score(sizes, first, room.queries, room)
            low, high = _seen(sizes, first)
            for query in range(first, min(first + TOGETHER, T)):
                to = at + query * S
                _soften(sizes, query, past.position[row], low, high, room.scores, shares, to)
        panels_of_columns(room.values, 0, D, S, D, S, room.panels)
        _mix(sizes, shares, at, room)
        _answer(room.mixed, T, D, heads, row * T * E + head * D, E)


@compiled
def attend_back(sizes, row, past, qkv, shares, d_heads, d_qkv, room):
    """From the gradient of the heads' answers (T, E) to that of queries, keys and values."""
    T, E, D = sizes.length, sizes.width, sizes.width // sizes.num_heads
    P, S, wide_T = sizes.num_past, padded_to_panels(sizes.num_past + T), padded_to_panels(T)
    for head in range(sizes.num_heads):
        at = (row * sizes.num_heads + head) * T * S
        to = row * T * 3 * E + head * D
        for position in range(T):
            _round(d_heads, position * E + head * D, D, room.answers, position * D)
        # Values: shares^T times the gradient of the answers.
        turn(shares, at + P, S, T, T, room.turned, 0, wide_T)
        _mix_turned(sizes, room.answers, room)
        _answer(room.mixed, T, D, d_qkv, to + 2 * E, 3 * E)
        # Shares: the gradient of the answers times values^T, then back through the softmax.
        _bring_values(sizes, row, head, past, qkv, room)
        panels_of_rows(room.values, P + T, D, room.panels)
        for first in range(0, T, TOGETHER):
            _score(sizes, first, room.answers, room)
            low, high = _seen(sizes, first)
            for query in range(first, min(first + TOGETHER, T)):
                _soften_back(query, S, low, high, room.scores, shares, at + query * S, room.slopes)
        # Queries and keys: slopes times keys, slopes^T times queries.
        _bring_queries_and_keys(sizes, row, head, past, qkv, room)
        panels_of_columns(room.keys, 0, D, S, D, S, room.panels)
        _mix(sizes, room.slopes, 0, room)
        _rotate_back(sizes, row, head, 0, past, qkv, room, d_qkv)
        turn(room.slopes, P, S, T, T, room.turned, 0, wide_T)
        _mix_turned(sizes, room.queries, room)
        _rotate_back(sizes, row, head, 1, past, qkv, room, d_qkv)


@compiled
def scale_of(x, at, width, epsilon):
    """1 / the root of the mean square."""
    squares = splat(_ZERO)
    for n in range(at, at + width, LANES):
        squares = fma(load(x, n), load(x, n), squares)
    return _ONE / np.sqrt(lane_sum(squares) / np.float32(width) + epsilon)


@compiled
def _seen(sizes, first):
    """Whole panels that hold every key which one of TOGETHER queries may see."""
    oldest = max(0, sizes.num_past + first - sizes.context_length + 1)
    last = sizes.num_past + min(first + TOGETHER, sizes.length)
    return oldest // PANEL_WIDTH * PANEL_WIDTH, padded_to_panels(last)


@compiled
def _score(sizes, first, halves, room):
    """TOGETHER rows of `halves` times the panels that they may see."""
    D, S = sizes.width // sizes.num_heads, padded_to_panels(sizes.num_past + sizes.length)
    low, high = _seen(sizes, first)
    for column in range(low, high, PANEL_WIDTH):
        put_panel(
            halves, first * D, D, min(TOGETHER, sizes.length - first), D,
            room.panels, column * D, room.scores, column, S,
        )  # fmt: skip


@compiled
def _mix(sizes, weights, at, room):
    """Queries' weights (T, S) times the panels, as far as each may see."""
    T, D = sizes.length, sizes.width // sizes.num_heads
    S, wide_D = padded_to_panels(sizes.num_past + T), padded_to_panels(D)
    for first in range(0, T, TOGETHER):
        low, high = _seen(sizes, first)
        for column in range(0, wide_D, PANEL_WIDTH):
            put_panel(
                weights, at + first * S + low, S, min(TOGETHER, T - first), high - low,
                room.panels, column * S + low * PANEL_WIDTH,
                room.mixed, first * wide_D + column, wide_D,
            )  # fmt: skip


@compiled
def _mix_turned(sizes, halves, room):
    """`turned` times positions' numbers (T padded, D)."""
    T, D = sizes.length, sizes.width // sizes.num_heads
    wide_T, wide_D = padded_to_panels(T), padded_to_panels(D)
    panels_of_columns(halves, 0, D, wide_T, D, wide_T, room.panels)
    multiply_rows(room.turned, 0, wide_T, T, wide_T, room.panels, wide_D, room.mixed, 0, wide_D)


@compiled
def _bring_queries_and_keys(sizes, row, head, past, qkv, room):
    """Those of a head, normalized and rotated; remembered keys before the new ones."""
    T, E, D = sizes.length, sizes.width, sizes.width // sizes.num_heads
    P, scale = sizes.num_past, _ONE / np.sqrt(np.float32(D))
    _recall(sizes, row, head, past, past.keys, room.keys)
    for position in range(T):
        at, angle = (row * T + position) * 3 * E + head * D, (row * T + position) * (D // 2)
        of_query = scale_of(qkv, at, D, sizes.epsilon) * scale
        _rotate(qkv, at, D, of_query, past, angle, room.queries, position * D)
        of_key = scale_of(qkv, at + E, D, sizes.epsilon)
        _rotate(qkv, at + E, D, of_key, past, angle, room.keys, (P + position) * D)


@compiled
def _bring_values(sizes, row, head, past, qkv, room):
    T, E, D = sizes.length, sizes.width, sizes.width // sizes.num_heads
    P = sizes.num_past
    _recall(sizes, row, head, past, past.values, room.values)
    for position in range(T):
        at = (row * T + position) * 3 * E + 2 * E + head * D
        _round(qkv, at, D, room.values, (P + position) * D)


@compiled
def _place(sizes, row, head, position):
    """Where a head's numbers of a position lie in a ring (B, L, C / lanes, N, D, lanes)."""
    E, D = sizes.width, sizes.width // sizes.num_heads
    slot = position % sizes.num_slots
    ring = (row * sizes.num_layers + sizes.layer) * sizes.num_slots * E
    return ring + (slot - slot % LANES) * E + head * D * LANES + slot % LANES


@compiled
def _recall(sizes, row, head, past, ring, out):
    """(P, D) of the last positions before the window; whatever, where there was none."""
    D, P = sizes.width // sizes.num_heads, sizes.num_past
    done = 0
    while done < P:
        position = past.position[row] - P + done
        num = min(LANES - position % LANES, P - done)
        place = _place(sizes, row, head, position)
        turn(ring, place, LANES, D, num, out, done * D, D)
        done += num


@compiled
def _remember(sizes, row, head, past, halves, ring):
    """The window's (T, D), which lie after those of the past: as many as there are slots."""
    D, T = sizes.width // sizes.num_heads, sizes.length
    done = max(0, T - sizes.num_slots)
    while done < T:
        position = past.position[row] + done
        num = min(LANES - position % LANES, T - done)
        place = _place(sizes, row, head, position)
        turn(halves, (sizes.num_past + done) * D, D, num, D, ring, place, LANES)
        done += num


@compiled
def _round(source, source_at, num, target, target_at):
    for n in range(0, num, LANES):
        store_halves(target, target_at + n, load(source, source_at + n))


@compiled
def _answer(mixed, T, D, out, at, stride):
    for position in range(T):
        _round(mixed, position * padded_to_panels(D), D, out, at + position * stride)


@compiled
def _rotate(x, at, D, scale, past, angle, out, out_at):
    """Scale, then turn pairs of numbers by the angles. The last vectors may overlap."""
    half = D // 2
    for start in range(0, half, LANES):
        n = min(start, half - LANES)
        a = multiply(load(x, at + n), splat(scale))
        b = multiply(load(x, at + half + n), splat(scale))
        cosine, sine = load(past.cosine, angle + n), load(past.sine, angle + n)
        store_halves(out, out_at + n, subtract(multiply(a, cosine), multiply(b, sine)))
        store_halves(out, out_at + half + n, fma(a, sine, multiply(b, cosine)))


@compiled
def _rotate_back(sizes, row, head, part, past, qkv, room, d_qkv):
    """`mixed` holds the gradients of rotated queries (part 0) or keys (part 1)."""
    T, E, D = sizes.length, sizes.width, sizes.width // sizes.num_heads
    half, wide_D, turned_back = D // 2, padded_to_panels(D), room.turned_back
    factor = splat(_ONE / np.sqrt(np.float32(D)) if part == 0 else _ONE)
    for position in range(T):
        at = (row * T + position) * 3 * E + part * E + head * D
        angle, of = (row * T + position) * half, position * wide_D
        for start in range(0, half, LANES):
            n = min(start, half - LANES)
            cosine = multiply(load(past.cosine, angle + n), factor)
            sine = multiply(load(past.sine, angle + n), factor)
            a, b = load(room.mixed, of + n), load(room.mixed, of + half + n)
            store(turned_back, n, fma(a, cosine, multiply(b, sine)))
            store(turned_back, half + n, subtract(multiply(b, cosine), multiply(a, sine)))
        scale = scale_of(qkv, at, D, sizes.epsilon)
        along = splat(_ZERO)
        for d in range(0, D, LANES):
            along = fma(load(turned_back, d), load(qkv, at + d), along)
        pull = splat(-lane_sum(along) * scale * scale * scale / np.float32(D))
        for d in range(0, D, LANES):
            direct = multiply(splat(scale), load(turned_back, d))
            store_halves(d_qkv, at + d, fma(pull, load(qkv, at + d), direct))


@compiled
def _soften(sizes, query, position, low, high, scores, shares, to):
    """Softmax over the visible keys of a query; nothing for all others.

    Queries and keys are normalized, so no score is beyond the root of D: e^score overflows nothing.
    """
    now = sizes.num_past + query
    at = query % TOGETHER * padded_to_panels(sizes.num_past + sizes.length)
    first = max(now - sizes.context_length + 1, sizes.num_past - position, 0)
    total = splat(_ZERO)
    for key in range(low, high, LANES):
        share = between(exp(load(scores, at + key)), key, first, now)
        store(scores, at + key, share)
        total = add(total, share)
    scale = splat(_ONE / lane_sum(total))
    for key in range(low, high, LANES):
        store_halves(shares, to + key, multiply(load(scores, at + key), scale))


@compiled
def _soften_back(query, S, low, high, d_shares, shares, shares_at, slopes):
    """From the gradient of shares to that of scores; zero for keys that no neighbor sees."""
    at, to = query % TOGETHER * S, query * S
    for key in range(0, S, LANES):
        store_halves(slopes, to + key, splat(_ZERO))
    along = splat(_ZERO)
    for key in range(low, high, LANES):
        along = fma(load(d_shares, at + key), load_halves(shares, shares_at + key), along)
    mean = splat(lane_sum(along))
    for key in range(low, high, LANES):
        share = load_halves(shares, shares_at + key)
        slope = multiply(share, subtract(load(d_shares, at + key), mean))
        store_halves(slopes, to + key, slope)
