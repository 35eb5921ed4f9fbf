"""Attention of tokens over the KV cache, with the steps before and after it.

The cache is the ring of `families.transformer`: blocks of slots (C / lanes, N, D, lanes). Blocks
are read in the order of positions, whichever slots hold them, so prefill and decode steps compute
the same sums. Keys and values of new tokens that are not yet in the ring are `fresh`.

Legend: R rows and tokens, N heads, D head width, P pairs of a head's numbers, S positions in a
block.
"""

import triton
import triton.language as tl

from charlm_model.kernels.triton.elementary import to_bfloat16
from charlm_model.kernels.triton.matmul import add_product, scale_of, sum_of_columns

LANES = tl.constexpr(16)  # slots in a block of the ring


@triton.jit
def prepare_tokens(
    x, positions, places, frequencies, angles,
    STRIDE: tl.constexpr, SIZE: tl.constexpr, EPSILON: tl.constexpr, DEPTH: tl.constexpr,
    HALF: tl.constexpr, PAIRS: tl.constexpr, ADVANCES: tl.constexpr,
):  # fmt: skip
    """Normalize a token's vector; compute its position and the angles of the rotary embedding.

    One program for each row and token. ADVANCES raises the row's position by one.
    """
    row, t = tl.program_id(0), tl.program_id(1)
    at = t * tl.num_programs(0) + row
    position = tl.load(positions + row)
    place = position + t
    tl.store(places + at, place)
    x_1 = x + at * STRIDE + tl.arange(0, 1)
    scale = scale_of(x_1, STRIDE, SIZE, EPSILON, 1, DEPTH)
    columns = tl.arange(0, DEPTH)
    for k in range(0, STRIDE, DEPTH):
        given = tl.load(x_1[:, None] + (k + columns)[None, :])
        tl.store(x_1[:, None] + (k + columns)[None, :], given * scale[:, None])
    pairs_P = tl.arange(0, PAIRS)
    is_pair = pairs_P < HALF
    angle = place.to(tl.float64) * tl.load(frequencies + pairs_P, mask=is_pair, other=0.0)
    tl.store(angles + at * 2 * PAIRS + pairs_P, tl.cos(angle).to(tl.float32))
    tl.store(angles + at * 2 * PAIRS + PAIRS + pairs_P, tl.sin(angle).to(tl.float32))
    if ADVANCES:
        tl.debug_barrier()  # all have read the position
        tl.store(positions + row, position + 1)


@triton.jit
def project_heads(
    x, weights, angles, queries, keys, values,
    STRIDE: tl.constexpr, SIZE: tl.constexpr, EPSILON: tl.constexpr, WIDTH: tl.constexpr,
    HEADS: tl.constexpr, HEAD_WIDTH: tl.constexpr, PAIRS: tl.constexpr,
    ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Project some rows to one head's queries, keys or values: one program for each of these.

    Weights (STRIDE, WIDTH) have the columns of a pair side by side. Queries are also scaled.
    """
    rows_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    part = tl.program_id(1)
    columns = part * 2 * PAIRS + tl.arange(0, 2 * PAIRS)
    sums = tl.zeros((ROWS, 2 * PAIRS), tl.float32)
    sums = add_product(sums, x + rows_R * STRIDE, weights, columns, STRIDE, WIDTH, DEPTH)
    sums *= scale_of(x + rows_R * STRIDE, STRIDE, SIZE, EPSILON, ROWS, DEPTH)[:, None]
    first, second = tl.split(tl.reshape(sums, (ROWS, PAIRS, 2)))
    pairs_P = tl.arange(0, PAIRS)
    HALF: tl.constexpr = HEAD_WIDTH // 2
    is_pair = (rows_R[:, None] >= 0) & (pairs_P < HALF)[None, :]
    kind, head = part // HEADS, part % HEADS
    at = (rows_R[:, None] * HEADS + head) * HEAD_WIDTH + pairs_P[None, :]
    if kind == 2:
        tl.store(values + at, to_bfloat16(first), mask=is_pair)
        tl.store(values + at + HALF, to_bfloat16(second), mask=is_pair)
    else:
        squares = tl.fma(first, first, second * second)
        mean = sum_of_columns(squares, ROWS, PAIRS) / HEAD_WIDTH
        scale = (1.0 / tl.sqrt(mean + EPSILON))[:, None]
        first, second = first * scale, second * scale
        turns = angles + rows_R[:, None] * 2 * PAIRS + pairs_P[None, :]
        cosine, sine = tl.load(turns), tl.load(turns + PAIRS)
        turned_first = tl.fma(first, cosine, -(second * sine))
        turned_second = tl.fma(first, sine, second * cosine)
        if kind == 0:
            factor = 1.0 / tl.sqrt(tl.full((), HEAD_WIDTH, tl.float32))
            tl.store(queries + at, turned_first * factor, mask=is_pair)
            tl.store(queries + at + HALF, turned_second * factor, mask=is_pair)
        else:
            tl.store(keys + at, to_bfloat16(turned_first), mask=is_pair)
            tl.store(keys + at + HALF, to_bfloat16(turned_second), mask=is_pair)


@triton.jit
def ring_of(rings, which: tl.constexpr, at):
    """Pointer into the ring of keys (0) or values (1); `rings` holds both tensors' addresses."""
    address = tl.load(rings + which)
    return tl.multiple_of(address.to(tl.pointer_type(tl.bfloat16)), 16) + at


# One binary for all batch sizes and lengths: specialized ones might sum in another order.
@triton.jit(do_not_specialize=["layer", "num_rows", "is_last"])
def attend(
    queries, keys, values, places, rings, mixed,
    layer, num_rows, is_last,
    LAYERS: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    STRIDE: tl.constexpr, WINDOW: tl.constexpr, BLOCKS: tl.constexpr,
    TOGETHER: tl.constexpr,
):  # fmt: skip
    """Softmax-weighted values of the last WINDOW tokens, the newest included.

    One program for each row, token and head. TOGETHER of the ring's BLOCKS blocks are processed at
    a time. If the token `is_last` of those read together, its key and value enter the ring.
    """
    row, t, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    at = t * num_rows + row
    place = tl.load(places + at)
    lanes_S, blocks = tl.arange(0, LANES), tl.arange(0, TOGETHER)
    width_D = tl.arange(0, PADDED)
    is_number = width_D < WIDTH
    row_width: tl.constexpr = HEADS * WIDTH
    ring = (row.to(tl.int64) * LAYERS + layer) * (BLOCKS * LANES * row_width) + head * WIDTH * LANES
    key_ring, value_ring = ring_of(rings, 0, ring), ring_of(rings, 1, ring)
    of_head = head * WIDTH + width_D
    query = tl.load(queries + at * row_width + of_head, mask=is_number, other=0.0)
    top = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    sums_D = tl.zeros((PADDED,), tl.float32)
    first = tl.maximum(place - WINDOW + 1, 0) // (LANES * TOGETHER) * TOGETHER
    first_of_ring = (first % BLOCKS).to(tl.int32)
    num_before = (place - first * LANES).to(tl.int32)  # positions processed before it
    for block in range(0, num_before // LANES + 1, TOGETHER):
        of_ring = ((first_of_ring + block + blocks) % BLOCKS)[:, None, None] * (LANES * row_width)
        in_ring = of_ring + width_D[None, :, None] * LANES + lanes_S[None, None, :]
        is_there = (in_ring >= 0) & is_number[None, :, None]
        key = tl.load(key_ring + in_ring, mask=is_there, other=0.0).to(tl.float32)
        value = tl.load(value_ring + in_ring, mask=is_there, other=0.0).to(tl.float32)
        age = num_before - ((block + blocks)[:, None] * LANES + lanes_S[None, :])
        if (block + TOGETHER) * LANES + t > num_before:
            is_fresh = ((age >= 0) & (age <= t))[:, None, :] & is_there
            fresh = ((t - age) * num_rows + row)[:, None, :] * row_width + of_head[None, :, None]
            fresh_key = tl.load(keys + fresh, mask=is_fresh, other=0.0).to(tl.float32)
            fresh_value = tl.load(values + fresh, mask=is_fresh, other=0.0).to(tl.float32)
            key, value = tl.where(is_fresh, fresh_key, key), tl.where(is_fresh, fresh_value, value)
        scores = tl.sum(query[None, :, None] * key, axis=1)
        is_visible = (age >= 0) & (age < WINDOW)
        scores = tl.where(is_visible, scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(tl.max(scores, axis=1), axis=0))
        kept = tl.exp(top - new_top)
        shares = tl.exp(scores - new_top)
        total = tl.fma(total, kept, tl.sum(tl.sum(shares, axis=1), axis=0))
        added_D = tl.sum(tl.sum(shares[:, None, :] * value, axis=2), axis=0)
        sums_D = tl.fma(sums_D, tl.zeros((PADDED,), tl.float32) + kept, added_D)
        top = new_top
    tl.store(mixed + at * STRIDE + of_head, sums_D / total, mask=is_number)
    if is_last:
        write_slot(keys, values, key_ring, value_ring, at, place, of_head, width_D, is_number,
              row_width, BLOCKS)  # fmt: skip


@triton.jit
def write_slot(
    keys, values, key_ring, value_ring, at, place, of_head, width_D, is_number,
    row_width: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Write a token's fresh key and value of one head into its slot of the ring."""
    slot = place % (BLOCKS * LANES)
    in_ring = (slot - slot % LANES) * row_width + slot % LANES + width_D * LANES
    key = tl.load(keys + at * row_width + of_head, mask=is_number, other=0.0)
    value = tl.load(values + at * row_width + of_head, mask=is_number, other=0.0)
    tl.store(key_ring + in_ring, key, mask=is_number)
    tl.store(value_ring + in_ring, value, mask=is_number)


@triton.jit(do_not_specialize=["layer", "num_rows"])
def write_ring(
    keys, values, places, rings,
    layer, num_rows,
    LAYERS: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """Write the fresh keys and values of a layer into the ring, after all tokens have read it.

    One program for each row, token and head; of tokens with the same slot only the newest writes.
    """
    row, t, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if t + BLOCKS * LANES >= tl.num_programs(1):
        at = t * num_rows + row
        width_D = tl.arange(0, PADDED)
        of_layer = (row.to(tl.int64) * LAYERS + layer) * (BLOCKS * LANES * HEADS * WIDTH)
        ring = of_layer + head * WIDTH * LANES
        write_slot(keys, values, ring_of(rings, 0, ring), ring_of(rings, 1, ring), at,
              tl.load(places + at), head * WIDTH + width_D, width_D, width_D < WIDTH,
              HEADS * WIDTH, BLOCKS)  # fmt: skip
