"""Token ids on disk, mapped into memory, so that a text may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charlm_training.errors import OutputFailed

Ids = npt.NDArray[np.unsignedinteger]


def dtype_for(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The narrowest type that holds every id."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def write_token_file(path: Path, pieces: Iterable[Ids], vocab_size: int) -> Ids:
    """Write pieces of ids one after another and map the result."""
    dtype = dtype_for(vocab_size)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for piece in pieces:
                file.write(np.ascontiguousarray(piece, dtype=dtype).data)
    except OSError as error:
        raise OutputFailed(f"Cannot write the token file {path}: {error.strerror}.") from error
    return np.memmap(path, dtype=dtype, mode="r")


def positions_of(ids_N: Ids, token_id: int, chunk: int = 1 << 22) -> npt.NDArray[np.int64]:
    """The positions of a token, found chunk by chunk to save memory."""
    found = [
        start + np.flatnonzero(ids_N[start : start + chunk] == token_id)
        for start in range(0, len(ids_N), chunk)
    ]
    return np.concatenate(found).astype(np.int64)
