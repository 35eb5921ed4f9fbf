"""Windows of a text for measurements: always the same ones. B batch, T time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from charlm_training.corpus.token_file import Ids
from charlm_training.errors import CorpusTooSmall


def spread_windows(ids_N: Ids, num_windows: int, length: int) -> Tensor:
    """Windows (B, T) spread evenly over a text, the first token of which is skipped."""
    last = len(ids_N) - length
    if last < 1:
        raise CorpusTooSmall(
            f"The validation part has {len(ids_N) - 1} tokens, and this measurement needs at "
            f"least {length}. Give it more text."
        )
    starts_B = np.unique(np.linspace(1, last, num_windows).astype(np.int64))
    at_BT = starts_B[:, None] + np.arange(length)
    return torch.from_numpy(ids_N[at_BT].astype(np.int64))
