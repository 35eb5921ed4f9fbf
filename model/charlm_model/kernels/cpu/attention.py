"""Attention of one new token over the KV cache, a ring of past tokens.

A layer's slots of a row are stored in blocks of one vector's lanes: (C / lanes, N, D, lanes). So
slots fill the lanes, and a text of any length is contiguous, which is read twice as fast as one
piece for each head (docs/log/kernels.md). Slots are bfloat16, because with many rows a step is
bound by memory. One load brings two numbers of 16 slots: the even and the odd halves of 16 pairs of
neighboring slots become two vectors of float32.

Legend: N heads, C slots (a multiple of the lanes), D head width (a multiple of 4), X numbers.
"""

import math
from typing import NamedTuple

import numpy as np

from charlm_model.kernels.cpu.elementary import exp, lane_max, lane_sum
from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.simd import (
    LANES,
    add,
    combine_halves,
    fma,
    fold_2,
    fold_4,
    fold_8,
    fold_interleaved,
    lane,
    load,
    load_evens,
    load_odds,
    maximum,
    multiply,
    prefetch,
    repeat_evens,
    repeat_odds,
    splat,
    store,
    subtract,
)

_BLOCKS_PER_PASS = 4  # blocks
_ZERO = np.float32(0)
_MINUS_INFINITY = np.float32(-np.inf)


class HeadRange(NamedTuple):
    """The heads to compute (first to end) of all `num`."""

    first: int
    end: int
    num: int
    width: int


@compiled
def attend(query, q_at, keys, values, at, heads, position, window, scores, sums, out, out_at):
    """Softmax-weighted values of the last `window` tokens, the newest included, for some heads.

    `at` is the offset of the row's ring of this layer. `scores` holds C numbers for each head (its
    length gives C), and `sums` half a vector for each number of a head.
    """
    num_slots = len(scores) // heads.num
    used = num_slots
    if position + 1 < num_slots:
        used = -(-(position + 1) // LANES) * LANES
    newest = position % num_slots
    num_visible = min(position + 1, window)
    _score(query, q_at, keys, values, at, heads, used, scores, sums)
    for head in range(heads.first, heads.end):
        _exponentiate(scores, head * num_slots, used, newest, num_visible, num_slots)
    _sum_values(values, at, heads, used, scores, sums)
    for head in range(heads.first, heads.end):
        _write_head(scores, head * num_slots, used, sums, heads.width, head, out, out_at)


@compiled
def _score(query, q_at, keys, values, at, heads, used, scores, pairs):
    """Products of the query with the keys of all used slots.

    `pairs` is filled with every two numbers of the query, each in half of the lanes. The values are
    prefetched meanwhile, one cache line at a time.
    """
    half, num_slots = LANES // 2, len(scores) // heads.num
    for d in range(heads.first * heads.width, heads.end * heads.width, 2):
        store(pairs, d * half, combine_halves(splat(query[q_at + d]), splat(query[q_at + d + 1])))
    of_head = heads.width * LANES
    block = heads.num * of_head
    c = 0
    while c < used:
        is_many = c + _BLOCKS_PER_PASS * LANES <= used
        for head in range(heads.first, heads.end):
            key, to = at + c // LANES * block + head * of_head, head * num_slots + c
            if is_many:
                _score_four(keys, values, key, block, heads.width, pairs, head, scores, to)
            else:
                _score_one(keys, values, key, heads.width, pairs, head, scores, to)
        c += _BLOCKS_PER_PASS * LANES if is_many else LANES


@compiled
def _score_four(keys, values, at, block, width, pairs, head, scores, to):
    a, b, c, d = splat(_ZERO), splat(_ZERO), splat(_ZERO), splat(_ZERO)
    s, t, u, v = splat(_ZERO), splat(_ZERO), splat(_ZERO), splat(_ZERO)
    pair = head * width * LANES // 2
    for i in range(0, width * LANES, 2 * LANES):
        q, key = load(pairs, pair + i // 2), at + i
        a = fma(q, load_evens(keys, key), a)
        s = fma(q, load_odds(keys, key), s)
        prefetch(values, key)
        b = fma(q, load_evens(keys, key + block), b)
        t = fma(q, load_odds(keys, key + block), t)
        prefetch(values, key + block)
        c = fma(q, load_evens(keys, key + 2 * block), c)
        u = fma(q, load_odds(keys, key + 2 * block), u)
        prefetch(values, key + 2 * block)
        d = fma(q, load_evens(keys, key + 3 * block), d)
        v = fma(q, load_odds(keys, key + 3 * block), v)
        prefetch(values, key + 3 * block)
    store(scores, to, fold_interleaved(a, s))
    store(scores, to + LANES, fold_interleaved(b, t))
    store(scores, to + 2 * LANES, fold_interleaved(c, u))
    store(scores, to + 3 * LANES, fold_interleaved(d, v))


@compiled
def _score_one(keys, values, at, width, pairs, head, scores, to):
    evens, odds = splat(_ZERO), splat(_ZERO)
    pair = head * width * LANES // 2
    for i in range(0, width * LANES, 2 * LANES):
        q, key = load(pairs, pair + i // 2), at + i
        evens = fma(q, load_evens(keys, key), evens)
        odds = fma(q, load_odds(keys, key), odds)
        prefetch(values, key)
    store(scores, to, fold_interleaved(evens, odds))


@compiled
def _exponentiate(scores, at, used, newest, num_visible, num_slots):
    """Replace one head's scores by e^(score - largest); 0 for slots outside the window."""
    if num_visible < used:
        _mask(scores, at, used, newest, num_visible, num_slots, _MINUS_INFINITY)
    largest = splat(_MINUS_INFINITY)
    for c in range(at, at + used, LANES):
        largest = maximum(load(scores, c), largest)
    top = splat(np.float32(lane_max(largest)))
    for c in range(at, at + used, LANES):
        store(scores, c, exp(subtract(load(scores, c), top)))
    if num_visible < used:
        _mask(scores, at, used, newest, num_visible, num_slots, _ZERO)


@compiled
def _mask(scores, at, used, newest, num_visible, num_slots, value):
    """Set the scores of the slots outside the window."""
    first = newest - num_visible + 1
    if first >= 0:
        scores[at : at + first] = value
        scores[at + newest + 1 : at + used] = value
    else:
        scores[at + newest + 1 : at + first + num_slots] = value


@compiled
def _sum_values(values, at, heads, used, scores, sums):
    """Weighted sums of the values: every two numbers share a vector, each in half of the lanes."""
    half, num_slots = LANES // 2, len(scores) // heads.num
    for i in range(heads.first * heads.width * half, heads.end * heads.width * half, LANES):
        store(sums, i, splat(_ZERO))
    of_head = heads.width * LANES
    block = heads.num * of_head
    c = 0
    while c < used:
        is_many = c + _BLOCKS_PER_PASS * LANES <= used
        for head in range(heads.first, heads.end):
            value, weight = at + c // LANES * block + head * of_head, head * num_slots + c
            if is_many:
                _sum_values_four(values, value, block, heads.width, scores, weight, sums, head)
            else:
                _sum_values_one(values, value, heads.width, scores, weight, sums, head)
        c += _BLOCKS_PER_PASS * LANES if is_many else LANES


@compiled
def _sum_values_four(values, at, block, width, scores, weight, sums, head):
    s, t = load(scores, weight), load(scores, weight + LANES)
    u, v = load(scores, weight + 2 * LANES), load(scores, weight + 3 * LANES)
    a, b, c, d = repeat_evens(s), repeat_evens(t), repeat_evens(u), repeat_evens(v)
    s, t, u, v = repeat_odds(s), repeat_odds(t), repeat_odds(u), repeat_odds(v)
    pair = head * width * LANES // 2
    for i in range(0, width * LANES, 2 * LANES):
        value, to = at + i, pair + i // 2
        total = fma(a, load_evens(values, value), load(sums, to))
        total = fma(s, load_odds(values, value), total)
        total = fma(b, load_evens(values, value + block), total)
        total = fma(t, load_odds(values, value + block), total)
        total = fma(c, load_evens(values, value + 2 * block), total)
        total = fma(u, load_odds(values, value + 2 * block), total)
        total = fma(d, load_evens(values, value + 3 * block), total)
        store(sums, to, fma(v, load_odds(values, value + 3 * block), total))


@compiled
def _sum_values_one(values, at, width, scores, weight, sums, head):
    weights = load(scores, weight)
    evens, odds = repeat_evens(weights), repeat_odds(weights)
    pair = head * width * LANES // 2
    for i in range(0, width * LANES, 2 * LANES):
        total = fma(evens, load_evens(values, at + i), load(sums, pair + i // 2))
        store(sums, pair + i // 2, fma(odds, load_odds(values, at + i), total))


@compiled
def _write_head(scores, at, used, sums, width, head, out, out_at):
    """Write one head's output: its weighted sums divided by the sum of its weights."""
    total = splat(_ZERO)
    for c in range(at, at + used, LANES):
        total = add(total, load(scores, c))
    share = np.float32(1) / lane_sum(total)
    for d in range(head * width, (head + 1) * width, 4):
        pairs = d * LANES // 2
        eights = fold_8(load(sums, pairs), load(sums, pairs + LANES))
        four = fold_2(fold_4(eights, eights), eights)
        for i in range(4):
            out[out_at + d + i] = lane(four, i) * share


@compiled
def normalize(x, at, width, epsilon):
    """x over its root mean square, in place; the width is a multiple of 4.

    Source: RMSNorm, Zhang & Sennrich (2019).
    """
    a, b, c, d = _ZERO, _ZERO, _ZERO, _ZERO
    for i in range(at, at + width, 4):
        a += x[i] * x[i]
        b += x[i + 1] * x[i + 1]
        c += x[i + 2] * x[i + 2]
        d += x[i + 3] * x[i + 3]
    scale = np.float32(1) / np.float32(
        math.sqrt(((a + b) + (c + d)) / np.float32(width) + np.float32(epsilon))
    )
    for i in range(at, at + width):
        x[i] *= scale


@compiled
def normalized(x, at, lanes, width, epsilon, out, out_at):
    """`normalize` for a row padded to whole vectors, written to `out`; the padding is zero."""
    squares = splat(_ZERO)
    for e in range(0, lanes, LANES):
        part = load(x, at + e)
        squares = fma(part, part, squares)
    mean = lane_sum(squares) / np.float32(width)
    scale = splat(np.float32(1) / np.float32(math.sqrt(mean + np.float32(epsilon))))
    for e in range(0, lanes, LANES):
        store(out, out_at + e, multiply(load(x, at + e), scale))


@compiled
def rotate(x, at, half, cosines, sines):
    """Rotate the pairs of a head's first and second half by the angles.

    Source: RoPE, Su et al. (2021).
    """
    for i in range(half):
        a, b = x[at + i], x[at + half + i]
        x[at + i] = a * cosines[i] - b * sines[i]
        x[at + half + i] = a * sines[i] + b * cosines[i]
