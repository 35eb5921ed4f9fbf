"""What goes into the first layer, as in `kernels.cpu.embedding`: sums in a fixed order.

Legend: R rows, V vocabulary, E width, S tokens seen: those remembered, then the new ones.
"""

import triton
import triton.language as tl


@triton.jit
def embed_row(
    token, place, tables, out,
    VOCAB: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    KERNEL: tl.constexpr, PAIRS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the vector of a token, before whose place its row has the tokens seen before.

    The tables follow each other: tokens, earlier tokens by age, pairs. Negative is no token.
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
    """All tokens of some rows, of which the first is at FIRST of the STRIDE that a row has.

    A program for each row and token; vectors lie token by token.
    """
    row, t = tl.program_id(0), tl.program_id(1)
    place = seen + row * STRIDE + FIRST + t
    out += (t * tl.num_programs(0) + row) * OUT_STRIDE
    embed_row(tl.load(place), place, tables, out, VOCAB, WIDTH, OUT_STRIDE, KERNEL, PAIRS, BLOCK)
