"""A Transformer block in training: all positions of a row in one call, forward and backward.

A row's activations stay in the processor's caches through all products, and threads split rows
without synchronizing. Arrays are flat, row after row; bfloat16 is stored as int16.

Legend: B rows, L layers, T time, E width, F hidden width of the MLP, N heads, D head width, C ring
slots, P past positions, S = P + T padded to whole panels.
"""

from typing import Any, NamedTuple

import numpy as np

from charlm_model.kernels.cpu.elementary import lane_sum
from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.simd import (
    LANES,
    fma,
    load,
    load_bfloat16,
    maximum,
    multiply,
    splat,
    store,
)
from charlm_model.kernels.cpu_training.attention import (
    attend,
    attend_backward,
    attention_workspace,
    scale_of,
)
from charlm_model.kernels.cpu_training.bfloat16 import load_dropout_scale, store_bfloat16
from charlm_model.kernels.cpu_training.bfloat16_panels import multiply_rows

Array = Any  # a tensor outside of kernels, a flat array inside
HIDDEN_FACTOR = 4
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)


class Sizes(NamedTuple):
    """The rows to compute, and the sizes of the window and the model."""

    first_row: int
    end_row: int
    length: int
    width: int
    num_heads: int
    layer: int
    num_layers: int
    num_slots: int
    num_past: int
    context_length: int
    dropped: int  # of 256 levels
    epsilon: Any


class SavedActivations(NamedTuple):
    """What `forward` saves for `backward`; inputs of products are in bfloat16."""

    normed: Array  # (B, T, E)
    qkv: Array  # (B, T, 3 E), before norm and rotation
    attn_weights: Array  # (B, N, T, S)
    heads: Array  # (B, T, E)
    middle: Array  # (B, T, E), between attention and MLP
    middle_normed: Array  # (B, T, E)
    relu: Array  # (B, T, F)
    squared: Array  # (B, T, F)


class PastWindow(NamedTuple):
    """The KV cache before the window, and the position of each row."""

    keys: Array  # (B, L, C / lanes, N, D, lanes), rings in bfloat16
    values: Array  # (B, L, C / lanes, N, D, lanes)
    position: Array  # (B,)
    cosine: Array  # (B, T, D / 2)
    sine: Array  # (B, T, D / 2)


class Gradients(NamedTuple):
    """Gradients of the results of the four products, in bfloat16."""

    qkv: Array
    attention_out: Array
    up: Array
    down: Array


@compiled
def forward(sizes, weights, x, bytes_2BTE, past, saved, keys, values, out):
    """Reads x (B, T, E); writes `out` (B, T, E), the rings `keys` and `values`, and `saved`.

    `weights` are panels of qkv, attention_out, up and down. Dropout zeroes a number if its random
    byte is below `dropped`.
    """
    qkv, attention_out, up, down = weights
    T, E = sizes.length, sizes.width
    F = HIDDEN_FACTOR * E
    workspace = attention_workspace(sizes)
    added, hidden = np.empty(T * E, np.float32), np.empty(T * F, np.float32)
    for row in range(sizes.first_row, sizes.end_row):
        at, hidden_at = row * T * E, row * T * F
        _normalize(x, at, T, E, sizes.epsilon, saved.normed)
        multiply_rows(saved.normed, at, E, T, E, qkv, 3 * E, saved.qkv, 3 * at, 3 * E)
        attend(
            sizes, row, past, saved.qkv, saved.attn_weights, keys, values, saved.heads, workspace
        )
        multiply_rows(saved.heads, at, E, T, E, attention_out, E, added, 0, E)
        _add_dropout(sizes.dropped, added, bytes_2BTE[0], x, at, T * E, saved.middle)
        _normalize(saved.middle, at, T, E, sizes.epsilon, saved.middle_normed)
        multiply_rows(saved.middle_normed, at, E, T, E, up, F, hidden, 0, F)
        for n in range(0, T * F, LANES):
            relu = maximum(load(hidden, n), splat(_ZERO))
            store_bfloat16(saved.relu, hidden_at + n, relu)
            store_bfloat16(saved.squared, hidden_at + n, multiply(relu, relu))
        multiply_rows(saved.squared, hidden_at, F, T, F, down, E, added, 0, E)
        _add_dropout(sizes.dropped, added, bytes_2BTE[1], saved.middle, at, T * E, out)


@compiled
def backward(sizes, weights, x, bytes_2BTE, past, saved, d_out, d_x, gradients):
    """Reads d_out (B, T, E); writes d_x (B, T, E) and `gradients`.

    `weights` are backward panels of the same matrices.
    """
    qkv, attention_out, up, down = weights
    T, E = sizes.length, sizes.width
    F = HIDDEN_FACTOR * E
    workspace = attention_workspace(sizes)
    wide, narrow = np.empty(T * F, np.float32), np.empty(T * E, np.float32)
    d_middle = np.empty(T * E, np.float32)
    for row in range(sizes.first_row, sizes.end_row):
        at, hidden_at = row * T * E, row * T * F
        _dropout_backward(sizes.dropped, d_out, at, bytes_2BTE[1], at, T * E, gradients.down)
        multiply_rows(gradients.down, at, E, T, E, down, F, wide, 0, F)
        for n in range(0, T * F, LANES):
            d_score = multiply(splat(_TWO), load_bfloat16(saved.relu, hidden_at + n))
            store_bfloat16(gradients.up, hidden_at + n, multiply(load(wide, n), d_score))
        multiply_rows(gradients.up, hidden_at, F, T, F, up, E, narrow, 0, E)
        _normalize_backward(saved.middle, at, T, E, sizes.epsilon, narrow, d_out, at, d_middle, 0)
        _dropout_backward(
            sizes.dropped, d_middle, 0, bytes_2BTE[0], at, T * E, gradients.attention_out
        )
        multiply_rows(gradients.attention_out, at, E, T, E, attention_out, E, narrow, 0, E)
        attend_backward(
            sizes, row, past, saved.qkv, saved.attn_weights, narrow, gradients.qkv, workspace
        )
        multiply_rows(gradients.qkv, 3 * at, 3 * E, T, 3 * E, qkv, E, narrow, 0, E)
        _normalize_backward(x, at, T, E, sizes.epsilon, narrow, d_middle, 0, d_x, at)


@compiled
def _normalize(x, at, num, width, epsilon, out):
    """RMSNorm of every position, in bfloat16."""
    for position in range(num):
        start = at + position * width
        scale = splat(scale_of(x, start, width, epsilon))
        for n in range(start, start + width, LANES):
            store_bfloat16(out, n, multiply(load(x, n), scale))


@compiled
def _normalize_backward(x, at, num, width, epsilon, d_normed, d_direct, direct_at, d_x, d_x_at):
    """d_x = d_direct + the gradient through the RMSNorm of x."""
    for position in range(num):
        offset = position * width
        scale = scale_of(x, at + offset, width, epsilon)
        along = splat(_ZERO)
        for n in range(offset, offset + width, LANES):
            along = fma(load(x, at + n), load(d_normed, n), along)
        pull = -lane_sum(along) * scale * scale * scale / np.float32(width)
        for n in range(offset, offset + width, LANES):
            through = fma(splat(pull), load(x, at + n), load(d_direct, direct_at + n))
            store(d_x, d_x_at + n, fma(splat(scale), load(d_normed, n), through))


@compiled
def _add_dropout(dropped, added, random_bytes, x, at, num, out):
    """out = x + dropout(added)."""
    scale = np.float32(256 / (256 - dropped))
    for n in range(0, num, LANES):
        saved = load_dropout_scale(random_bytes, at + n, dropped, scale)
        store(out, at + n, fma(load(added, n), saved, load(x, at + n)))


@compiled
def _dropout_backward(dropped, gradient, gradient_at, random_bytes, at, num, out):
    scale = np.float32(256 / (256 - dropped))
    for n in range(0, num, LANES):
        saved = load_dropout_scale(random_bytes, at + n, dropped, scale)
        store_bfloat16(out, at + n, multiply(load(gradient, gradient_at + n), saved))
