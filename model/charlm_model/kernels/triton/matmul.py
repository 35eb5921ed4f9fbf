"""Matrix products, every sum one chain of fused multiply-adds in the order of the inputs.

So a row's bits depend neither on its tile nor on the other rows, and tiles are chosen for speed
alone. Sums over the columns of a row are pairwise sums.

Legend: R rows, K inputs, N outputs.
"""

import triton
import triton.language as tl


@triton.jit
def add_product(
    sums_RN, rows_R, weights, columns_N, K: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr
):
    """Add rows of K numbers (given by pointers) times the given columns of weights (K, WIDTH)."""
    depth_K = tl.arange(0, DEPTH)
    for k in range(0, K, DEPTH):
        given = tl.load(rows_R[:, None] + (k + depth_K)[None, :])
        weight = tl.load(weights + (k + depth_K)[:, None] * WIDTH + columns_N[None, :])
        sums_RN = tl.dot(given, weight, sums_RN, input_precision="ieee")
    return sums_RN


@triton.jit
def sum_of_columns(x_RN, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The sum of each row (R), pairwise over a power of two of columns."""
    for halving in tl.static_range(0, 13):
        if COLUMNS >> halving > 1:
            even, odd = tl.split(tl.reshape(x_RN, (ROWS, COLUMNS >> halving >> 1, 2)))
            x_RN = even + odd
    return tl.reshape(x_RN, (ROWS,))


@triton.jit
def scale_of(rows_R, K: tl.constexpr, SIZE: tl.constexpr, EPSILON: tl.constexpr,
             ROWS: tl.constexpr, DEPTH: tl.constexpr):  # fmt: skip
    """1 / root mean square of each row's SIZE numbers, which are padded with zeros to K."""
    depth_K = tl.arange(0, DEPTH)
    squares = tl.zeros((ROWS, DEPTH), tl.float32)
    for k in range(0, K, DEPTH):
        given = tl.load(rows_R[:, None] + (k + depth_K)[None, :])
        squares = tl.fma(given, given, squares)
    return 1.0 / tl.sqrt(sum_of_columns(squares, ROWS, DEPTH) / SIZE + EPSILON)


@triton.jit
def multiply(
    inputs, weights, bias, outputs,
    STRIDE: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr,
    SIZE: tl.constexpr, EPSILON: tl.constexpr,
    ADDS: tl.constexpr, HAS_BIAS: tl.constexpr, IS_SQUARED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """outputs (R, WIDTH) = inputs (R, K; a row every STRIDE) times weights (K, WIDTH).

    EPSILON > 0 normalizes the inputs first. ADDS adds the earlier outputs, HAS_BIAS the bias;
    IS_SQUARED applies squared ReLU last.
    """
    rows_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns_N = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    given_R = inputs + rows_R * STRIDE
    places = rows_R[:, None] * WIDTH + columns_N[None, :]
    sums_RN = tl.zeros((ROWS, COLUMNS), tl.float32)
    if ADDS:
        sums_RN = tl.load(outputs + places)
    sums_RN = add_product(sums_RN, given_R, weights, columns_N, K, WIDTH, DEPTH)
    if EPSILON > 0:
        sums_RN *= scale_of(given_R, K, SIZE, EPSILON, ROWS, DEPTH)[:, None]
    if HAS_BIAS:
        sums_RN += tl.load(bias + columns_N)[None, :]
    if IS_SQUARED:
        positive = tl.maximum(sums_RN, 0.0)
        sums_RN = positive * positive
    tl.store(outputs + places, sums_RN)
