"""How kernels are compiled."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

from charlm_model.kernels.cpu.jit_cache import with_cache

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compiled when first called, with exactly the operations that are written."""
    kernel = numba.njit(nogil=True, error_model="numpy")(function)
    return cast(Function, with_cache(kernel, function))


def inlined(function: Function) -> Function:
    """The same, for a part of a kernel that is called in its innermost loops."""
    return cast(Function, numba.njit(nogil=True, error_model="numpy", forceinline=True)(function))
