"""A cache of compiled kernels on disk, read only from folders that no other user can write to.

numba caches compiled code as pickles: anyone who can write one can run code in the process that
reads it. So a folder is used only if nobody but this user and root can write there.
"""

import atexit
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache

logger = logging.getLogger(__name__)

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class JitCache(FunctionCache):
    """Compiled code of one kernel. If it cannot be read, the kernel is compiled again."""

    def load_overload(self, *signature: Any) -> Any:
        try:
            return super().load_overload(*signature)
        except Exception as error:  # noqa: BLE001 - a damaged file can raise anything
            logger.warning("compiled kernels cannot be read and are compiled again: %r", error)
            return None

    def save_overload(self, *compiled: Any) -> None:
        try:
            super().save_overload(*compiled)
        except OSError as error:
            logger.warning("compiled kernels cannot be cached: %s", error.strerror)


def with_cache(kernel: Any, function: Callable[..., object]) -> Any:
    """The kernel, with its compiled code cached on disk where there is a safe folder."""
    if FOLDER is not None:
        kernel._cache = JitCache(function)
    return kernel


def choose_folder() -> Path | None:
    """The user's cache folder for this version of the sources, or a temporary one for this process.

    If the folder named by CHARLM_KERNELS_DIR cannot be written, as in a read-only container, the
    temporary folder starts as a copy of it. None where nothing can be written at all.
    """
    wanted, mode = _wanted_folder()
    try:
        wanted.mkdir(mode, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=wanted).close()
        is_writable = True
    except OSError:
        is_writable = False
    is_safe = wanted.is_dir() and is_safe_folder(wanted)
    if wanted.is_dir() and not is_safe:
        logger.warning("kernel cache %s is not used: other users can write there or above", wanted)
    if is_writable and is_safe:
        return wanted
    return _temporary(wanted if is_safe else None)


def _temporary(made_before: Path | None) -> Path | None:
    try:
        folder = Path(tempfile.mkdtemp(prefix="charlm-kernels-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        if made_before is not None:
            shutil.copytree(made_before, folder, dirs_exist_ok=True)
    except OSError as error:
        logger.warning("compiled kernels cannot be cached: %s", error)
        return None
    return folder


def is_safe_folder(folder: Path) -> bool:
    """Whether only this user and root can write to the folder or replace it."""
    folder = folder.resolve()
    try:
        status = folder.stat()
        is_closed = not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        inside = [] if is_closed else [each.lstat() for each in folder.rglob("*")]
        above = [each.stat() for each in folder.parents]
    except OSError:
        return False
    return (
        _are_owned((status, *inside, *above))
        and not any(each.st_mode & _OTHERS_WRITE for each in (status, *inside))
        and not any(_is_open(each) for each in above)
    )


def _are_owned(found: Iterable[os.stat_result]) -> bool:
    return all(each.st_uid in (0, os.geteuid()) for each in found)


def _is_open(above: os.stat_result) -> bool:
    """Whether anyone may rename entries; a sticky folder, such as /tmp, allows only owners to."""
    return bool(above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX)


def _wanted_folder() -> tuple[Path, int]:
    """The folder and its mode: a container image is built by one user and run by another."""
    if "NUMBA_CACHE_DIR" in os.environ:
        return Path(os.environ["NUMBA_CACHE_DIR"]), 0o755
    named = os.environ.get("CHARLM_KERNELS_DIR")
    if named:
        return Path(named) / _sources_digest(), 0o755
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home
        cache = Path(os.devnull)
    return cache / "charlm" / "kernels" / _sources_digest(), 0o700


def _sources_digest() -> str:
    """Digest of all kernels: numba itself does not notice a change in an imported file."""
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


FOLDER = choose_folder()
numba.config.CACHE_DIR = "" if FOLDER is None else str(FOLDER)
