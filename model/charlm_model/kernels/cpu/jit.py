"""Decorators that compile kernels with numba."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

from charlm_model.kernels.cpu.jit_cache import with_cache

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compiled at the first call, without fast math (exactly as written), and cached."""
    kernel = numba.njit(nogil=True, error_model="numpy")(function)
    return cast(Function, with_cache(kernel, function))


def inlined(function: Function) -> Function:
    """The same for a function that is called in innermost loops: inlined, not cached by itself."""
    return cast(Function, numba.njit(nogil=True, error_model="numpy", forceinline=True)(function))
