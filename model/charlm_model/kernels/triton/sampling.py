"""Samples the next token as `charlm_model.kernels.cpu.sampling` does, and embeds it.

Legend: V vocabulary.
"""

import triton
import triton.language as tl

from charlm_model.kernels.triton.elementary import exp_64
from charlm_model.kernels.triton.embedding import embed_row

MIN_LOGPROB = tl.constexpr(-708.0)  # of the smallest probability that is not taken for 0
LANES = tl.constexpr(8)  # partial sums, as in the CPU's kernels
UNROLLED = tl.constexpr(8)
NUM_DRAWN = tl.constexpr(3)  # numbers returned for a token
NUM_COUNTERS = tl.constexpr(4)  # numbers of a row: seed, output, position, steps done


@triton.jit
def uniform(seed, output, position):
    """One number in [0, 1): Philox4x32-10, as in `charlm_model.sampling.philox`."""
    low = tl.full((), 0xFFFFFFFF, tl.uint64)
    first_factor, second_factor = 0xD2511F53, 0xCD9E8D57
    c0, c1, c2 = position & low, position >> 32, output & low
    c3 = tl.zeros((), tl.uint64)
    k0, k1 = seed & low, seed >> 32
    for _ in tl.static_range(10):
        p0, p1 = c0 * first_factor, c2 * second_factor
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & low, (p0 >> 32) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return (((c0 << 32) | c1) >> 11).to(tl.float64) * 1.1102230246251565e-16


@triton.jit
def lane_sum(powers, SIZE: tl.constexpr):
    """The sum of SIZE numbers (whole rounds of lanes), in the order of the CPU's kernels."""
    lanes = tl.arange(0, LANES)
    totals = tl.zeros((LANES,), tl.float64)
    for first in range(0, SIZE, LANES * UNROLLED):
        for place in tl.static_range(0, LANES * UNROLLED, LANES):
            totals += tl.load(powers + first + place + lanes)
    low, high = tl.split(tl.trans(tl.reshape(totals, (2, LANES // 2))))
    even, odd = tl.split(tl.trans(tl.reshape(low + high, (2, 2))))
    even, odd = tl.split(even + odd)
    return even + odd


@triton.jit
def draw(
    logits, counters, powers, seen, tables, drawn, out,
    VOCAB: tl.constexpr, LOGITS_STRIDE: tl.constexpr, POWERS_STRIDE: tl.constexpr,
    FIRST: tl.constexpr, SEEN_STRIDE: tl.constexpr, OUT_STRIDE: tl.constexpr,
    WIDTH: tl.constexpr, KERNEL: tl.constexpr, PAIRS: tl.constexpr,
    BLOCK: tl.constexpr, WIDTH_BLOCK: tl.constexpr,
):  # fmt: skip
    """Draw a row's next token from its logits: one program for each row.

    Writes the token, its logit minus the largest, and the sum of e^(logit - largest); the processor
    takes the logarithm, so that it is the same on both. Also writes the token to `seen` and its
    vector to `out`, and raises the row's count of steps.
    """
    row = tl.program_id(0)
    logits += row * LOGITS_STRIDE
    powers += row * POWERS_STRIDE
    counters += row * NUM_COUNTERS
    step = tl.load(counters + 3)
    columns = tl.arange(0, BLOCK)
    top = tl.full((), float("-inf"), tl.float32)
    for v in range(0, VOCAB, BLOCK):
        is_token = v + columns < VOCAB
        part = tl.load(logits + v + columns, mask=is_token, other=float("-inf"))
        top = tl.maximum(top, tl.max(part))
    top_64 = top.to(tl.float64)
    for v in range(0, POWERS_STRIDE, BLOCK):
        is_token = v + columns < VOCAB
        part = tl.load(logits + v + columns, mask=is_token, other=0.0).to(tl.float64) - top_64
        power = tl.where(is_token, exp_64(part), 0.0)
        tl.store(powers + v + columns, power, mask=v + columns < POWERS_STRIDE)
    tl.debug_barrier()  # all powers are written before any is read
    total = lane_sum(powers, POWERS_STRIDE)
    seed = tl.load(counters).to(tl.uint64, bitcast=True)
    output = tl.load(counters + 1).to(tl.uint64, bitcast=True)
    position = (tl.load(counters + 2) + step).to(tl.uint64, bitcast=True)
    target = uniform(seed, output, position) * total
    before = tl.zeros((), tl.float64)
    token = tl.zeros((), tl.int64)
    for v in range(0, VOCAB, BLOCK):
        is_token = v + columns < VOCAB
        part = tl.load(logits + v + columns, mask=is_token, other=float("-inf"))
        counts = is_token & (
            part.to(tl.float64) - top_64 > MIN_LOGPROB
        )  # the others have probability 0
        power = tl.where(counts, tl.load(powers + v + columns, mask=is_token, other=0.0), 0.0)
        cumulated = tl.cumsum(power) + before
        token += tl.sum((is_token & (cumulated <= target)).to(tl.int64))
        before += tl.sum(power)
    token = tl.minimum(token, VOCAB - 1)
    told = drawn + (step * tl.num_programs(0) + row) * NUM_DRAWN
    tl.store(told, token.to(tl.float64))
    tl.store(told + 1, tl.load(logits + token).to(tl.float64) - top_64)
    tl.store(told + 2, total)
    place = seen + row * SEEN_STRIDE + FIRST + step
    tl.store(place, token)
    embed_row(
        token, place, tables, out + row * OUT_STRIDE,
        VOCAB, WIDTH, OUT_STRIDE, KERNEL, PAIRS, WIDTH_BLOCK,
    )  # fmt: skip
    tl.debug_barrier()  # all have read the count of steps
    tl.store(counters + 3, step + 1)
