"""How kernels are compiled, and where the compiled code is kept for the next process."""

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compiled when first called, with exactly the operations that are written."""
    decorate = numba.njit(nogil=True, cache=True, error_model="numpy")
    return cast(Function, decorate(function))


def inlined(function: Function) -> Function:
    """The same, for a part of a kernel that is called in its innermost loops."""
    return cast(Function, numba.njit(nogil=True, error_model="numpy", forceinline=True)(function))


def _keep_compiled_code() -> None:
    """In the user's cache, apart for every version of the sources; else for this process alone.

    A folder named by CHARLM_KERNELS_DIR that cannot be written, as in a read-only container, is
    copied first.
    """
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    folder = _wanted_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        made_before, folder = folder, Path(tempfile.mkdtemp(prefix="charlm-kernels-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        if made_before.is_dir():
            shutil.copytree(made_before, folder, dirs_exist_ok=True)
    numba.config.CACHE_DIR = str(folder)


def _wanted_folder() -> Path:
    named = os.environ.get("CHARLM_KERNELS_DIR")
    if named:
        return Path(named) / _sources_digest()
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home
        cache = Path(os.devnull)
    return cache / "charlm" / "kernels" / _sources_digest()


def _sources_digest() -> str:
    """Of all kernels: numba alone would not notice that a part in another file changed."""
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


_keep_compiled_code()
