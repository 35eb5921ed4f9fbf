"""Where training multiplies in bfloat16: on processors that do so faster than in float32."""

from contextlib import AbstractContextManager

import torch


def has_fast_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16 matrices."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def half_products(training: bool) -> AbstractContextManager[object]:
    """Inside it, training multiplies in bfloat16 and adds in float32; all else is untouched.

    An LSTM of 384 trains 1.4 times as fast, to the same loss (docs/LOG.md).
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=training and has_fast_bfloat16())
