"""The input of the first layer, summed in the order of `kernels.cpu.embedding`.

Legend: R rows, V vocabulary, E width, S recent and new tokens.
"""

import triton
import triton.language as tl


@triton.jit
def embed_row(
    token, place, tables, out,
    VOCAB: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    KERNEL: tl.constexpr, PAIRS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the input vector of a token; the tokens before it stand before `place`.

    The tables follow each other: tokens, earlier tokens by age, pairs. A negative id is no token.
    """
    columns = tl.arange(0, BLOCK)
    x = tl.load(tables + token * WIDTH + columns, mask=columns < WIDTH, other=0.0)
    for age in tl.static_range(1, KERNEL):
        earlier = tl.minimum(tl.load(place - age), VOCAB - 1)
        width = tl.where(earlier < 0, 0, WIDTH)
        at = (age * VOCAB + earlier) * WIDTH + columns
        x += tl.load(tables + at, mask=columns < width, other=0.0)
    if PAIRS:
        before = tl.load(place - 1)
        at = (KERNEL * VOCAB + (before * VOCAB + token) % PAIRS) * WIDTH + columns
        x += tl.load(tables + at, mask=columns < tl.where(before < 0, 0, WIDTH), other=0.0)
    tl.store(out + columns, x, mask=columns < PADDED)


@triton.jit
def embed(
    seen, tables, out,
    FIRST: tl.constexpr, STRIDE: tl.constexpr, OUT_STRIDE: tl.constexpr,
    VOCAB: tl.constexpr, WIDTH: tl.constexpr,
    KERNEL: tl.constexpr, PAIRS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Embed all tokens: a row has STRIDE ids, of which the first new one is at FIRST.

    One program for each row and token; vectors are ordered token by token.
    """
    row, t = tl.program_id(0), tl.program_id(1)
    place = seen + row * STRIDE + FIRST + t
    out += (t * tl.num_programs(0) + row) * OUT_STRIDE
    embed_row(tl.load(place), place, tables, out, VOCAB, WIDTH, OUT_STRIDE, KERNEL, PAIRS, BLOCK)
