"""Transposes and panels of bfloat16 matrices, with numpy as the oracle."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm_model.kernels.cpu.simd import LANES
from charlm_model.kernels.cpu_training.bfloat16 import PANEL_WIDTH
from charlm_model.kernels.cpu_training.bfloat16_panels import (
    panels_of_columns,
    panels_of_rows,
    transpose,
)

ONE = np.int16(0x3F80)
sizes = st.integers(1, 70)


def matrix(num_rows: int, num_columns: int) -> np.ndarray:
    return np.arange(1, num_rows * num_columns + 1, dtype=np.int16).reshape(num_rows, num_columns)


def values_of(bfloat16s: np.ndarray) -> np.ndarray:
    """The same numbers in float32; they are the upper halves of its bits."""
    return (bfloat16s.astype(np.int32) << 16).view(np.float32)


@settings(deadline=None)  # the first example compiles
@given(num_rows=sizes, num_columns=sizes, margin=st.integers(0, 3))
def test_transpose_agrees_with_numpy(num_rows: int, num_columns: int, margin: int) -> None:
    padded = matrix(num_rows, num_columns + margin)
    out = np.zeros((num_columns, num_rows + margin), np.int16)

    transpose(
        padded.ravel(), margin, num_columns + margin, num_rows, num_columns,
        out.reshape(-1), 0, num_rows + margin,
    )  # fmt: skip

    assert (out[:, :num_rows] == padded[:, margin:].T).all()
    assert not out[:, num_rows:].any()


@given(num_rows=sizes, num_pairs=sizes)
def test_panels_of_rows_hold_pairs_of_columns(num_rows: int, num_pairs: int) -> None:
    bfloat16s = matrix(num_rows, 2 * num_pairs)
    num_panels = -(-num_rows // PANEL_WIDTH)
    panels = np.zeros(num_panels * num_pairs * PANEL_WIDTH * 2, np.int16)

    panels_of_rows(bfloat16s.ravel(), num_rows, 2 * num_pairs, panels)

    by_pair = panels.reshape(num_panels, num_pairs, PANEL_WIDTH, 2)
    rows = by_pair.transpose(0, 2, 1, 3).reshape(-1, 2 * num_pairs)
    assert (rows[:num_rows] == bfloat16s).all()
    assert not rows[num_rows:].any()


@given(num_pairs=sizes, num_vectors=st.integers(1, 5), is_rounded=st.booleans())
def test_panels_of_columns_hold_pairs_of_rows(
    num_pairs: int, num_vectors: int, is_rounded: bool
) -> None:
    width = num_vectors * LANES
    bfloat16s = (
        matrix(2 * num_pairs, width) + ONE
    )  # normal numbers: rounding flushes subnormal ones to 0
    given = values_of(bfloat16s) if is_rounded else bfloat16s
    num_panels = -(-width // PANEL_WIDTH)
    panels = np.zeros(num_panels * num_pairs * PANEL_WIDTH * 2, np.int16)

    panels_of_columns(given.ravel(), 0, width, 2 * num_pairs, width, 2 * num_pairs, panels)

    by_pair = panels.reshape(num_panels, num_pairs, PANEL_WIDTH, 2)
    columns = by_pair.transpose(0, 2, 1, 3).reshape(-1, 2 * num_pairs)
    assert (columns[:width] == bfloat16s.T).all()
