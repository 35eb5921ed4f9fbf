"""Attention of one new token over a ring of past ones.

The slots of a head lie in blocks of as many as a vector has lanes: (C / lanes, D, lanes). So slots
fill the lanes, nothing is summed across them but at the very end, and a short text touches little
memory. They are bfloat16, because at many rows reading them is what a step takes its time for.

Legend: C slots (a multiple of the lanes), D head width (a multiple of 4).
"""

import math

import numpy as np

from charlm_model.compiled.build import compiled
from charlm_model.compiled.functions import exp, lane_max, lane_sum
from charlm_model.compiled.vectors import (
    LANES,
    add,
    expect,
    fma,
    larger,
    load,
    load_halves,
    multiply,
    splat,
    store,
    subtract,
)

_ZERO = np.float32(0)
_PER_LINE = 32  # halves that memory brings at once
_NEVER = np.float32(-np.inf)


@compiled
def attend(
    query, q_at, keys, values, at, next_at, width, position, window, scores, sums, out, out_at
):
    """Softmax-weighted values of the last `window` tokens, the newest included, for one head.

    `scores` has room for C numbers, which tells C, and `sums` for a vector for each of D numbers.
    `next_at` is where the next call's ring begins, which memory is told in time.
    """
    num_slots = len(scores)
    used = num_slots
    if position + 1 < num_slots:
        used = -(-(position + 1) // LANES) * LANES
    largest = _score(query, q_at, keys, values, at, used, width, scores)
    newest = position % num_slots
    num_visible = min(position + 1, window)
    if num_visible < used:
        _hide(scores, used, newest, num_visible, num_slots, _NEVER)
        largest = splat(_NEVER)
        for c in range(0, used, LANES):
            largest = larger(load(scores, c), largest)
    top = splat(np.float32(lane_max(largest)))
    for c in range(0, used, LANES):
        store(scores, c, exp(subtract(load(scores, c), top)))
    if num_visible < used:
        _hide(scores, used, newest, num_visible, num_slots, _ZERO)
    total = splat(_ZERO)
    for c in range(0, used, LANES):
        total = add(total, load(scores, c))
    _mix(values, at, keys, next_at, used, width, scores, sums)
    share = np.float32(1) / lane_sum(total)
    for d in range(width):
        out[out_at + d] = lane_sum(load(sums, d * LANES)) * share


@compiled
def _score(query, q_at, keys, values, at, used, width, scores):
    """Products of the query with the keys of all used slots; returns the largest of every lane.

    Meanwhile memory is asked for the values, line by line: all at once would be a wait.
    """
    largest = splat(_NEVER)
    block = width * LANES
    c = 0
    while c + 4 * LANES <= used:
        s, t, u, v = splat(_ZERO), splat(_ZERO), splat(_ZERO), splat(_ZERO)
        for d in range(width):
            q, key = splat(query[q_at + d]), at + c * width + d * LANES
            s = fma(q, load_halves(keys, key), s)
            t = fma(q, load_halves(keys, key + block), t)
            u = fma(q, load_halves(keys, key + 2 * block), u)
            v = fma(q, load_halves(keys, key + 3 * block), v)
            line = at + c * width + d * 4 * LANES
            expect(values, line)
            expect(values, line + _PER_LINE)
        store(scores, c, s)
        store(scores, c + LANES, t)
        store(scores, c + 2 * LANES, u)
        store(scores, c + 3 * LANES, v)
        largest = larger(larger(s, t), larger(larger(u, v), largest))
        c += 4 * LANES
    while c < used:
        s = splat(_ZERO)
        for d in range(0, width, 2):
            key = at + c * width + d * LANES
            s = fma(splat(query[q_at + d]), load_halves(keys, key), s)
            s = fma(splat(query[q_at + d + 1]), load_halves(keys, key + LANES), s)
            expect(values, key)
        store(scores, c, s)
        largest = larger(s, largest)
        c += LANES
    return largest


@compiled
def _mix(values, at, keys, next_at, used, width, scores, sums):
    """For every number of a value, the weighted sums of the slots in each lane.

    Meanwhile memory is asked for the next head's keys.
    """
    for d in range(0, width * LANES, LANES):
        store(sums, d, splat(_ZERO))
    block = width * LANES
    c = 0
    while c + 4 * LANES <= used:
        s, t = load(scores, c), load(scores, c + LANES)
        u, v = load(scores, c + 2 * LANES), load(scores, c + 3 * LANES)
        for d in range(0, block, LANES):
            value = at + c * width + d
            total = fma(s, load_halves(values, value), load(sums, d))
            total = fma(t, load_halves(values, value + block), total)
            total = fma(u, load_halves(values, value + 2 * block), total)
            store(sums, d, fma(v, load_halves(values, value + 3 * block), total))
            line = next_at + c * width + 4 * d
            expect(keys, line)
            expect(keys, line + _PER_LINE)
        c += 4 * LANES
    while c < used:
        weight = load(scores, c)
        for d in range(0, block, 2 * LANES):
            value, after = at + c * width + d, d + LANES
            store(sums, d, fma(weight, load_halves(values, value), load(sums, d)))
            store(sums, after, fma(weight, load_halves(values, value + LANES), load(sums, after)))
            expect(keys, next_at + c * width + d)
        c += LANES


@compiled
def _hide(scores, used, newest, num_visible, num_slots, value):
    """Set the scores of the slots that hold no token that may be looked at."""
    first = newest - num_visible + 1
    if first >= 0:
        for c in range(first):
            scores[c] = value
        for c in range(newest + 1, used):
            scores[c] = value
    else:
        for c in range(newest + 1, first + num_slots):
            scores[c] = value


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
    """The same for a row of whole vectors, written elsewhere; what pads it is zero."""
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
    """Turn the pairs of a head's first and second half by the angles.

    Source: RoPE, Su et al. (2021).
    """
    for i in range(half):
        a, b = x[at + i], x[at + half + i]
        x[at + i] = a * cosines[i] - b * sines[i]
        x[at + half + i] = a * sines[i] + b * cosines[i]
