"""Compiled kernels are cached for later processes, in folders that no other user can write to."""

import errno
import os
from pathlib import Path

import numba
import pytest
from numba.core.caching import FunctionCache

from charlm_model.kernels.cpu import jit_cache
from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.jit_cache import choose_folder, is_safe_folder


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of CHARLM_KERNELS_DIR."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("CHARLM_KERNELS_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def test_a_safe_cache_folder_is_reused(named: Path) -> None:
    first = choose_folder()

    assert first is not None
    assert first.parent == named
    assert choose_folder() == first


def test_the_cache_of_a_user_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NUMBA_CACHE_DIR", "CHARLM_KERNELS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    folder = choose_folder()

    assert folder is not None
    assert folder.is_relative_to(tmp_path)
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("variable", ["CHARLM_KERNELS_DIR", "NUMBA_CACHE_DIR"])
def test_a_folder_that_others_can_write_to_is_not_used(
    named: Path, variable: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = choose_folder()
    assert first is not None
    monkeypatch.setenv(variable, str(first if variable.startswith("NUMBA") else named))
    (first / "planted.nbi").write_bytes(b"code")
    first.chmod(0o777)

    other = choose_folder()

    assert other is not None
    assert other != first
    assert list(other.iterdir()) == []
    assert "other users can write" in caplog.text


@pytest.mark.parametrize("inside", ["", "part", "part/file.nbi"])
def test_others_may_not_write_in_the_folder(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / "kernels"
    (folder / "part").mkdir(parents=True)
    (folder / "part" / "file.nbi").touch()
    assert is_safe_folder(folder)

    (folder / inside).chmod(0o775)

    assert not is_safe_folder(folder)


def test_a_folder_that_others_can_replace_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "open" / "kernels"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o777)
    assert not is_safe_folder(folder)

    folder.parent.chmod(0o1777)

    assert is_safe_folder(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_a_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir()
    os.chown(folder, 12345, 12345)

    assert not is_safe_folder(folder)


def test_a_read_only_folder_is_copied(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = choose_folder()
    assert first is not None
    (first / "made.nbi").write_bytes(b"code")

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(jit_cache.tempfile, "TemporaryFile", refuse)
    copy = choose_folder()

    assert copy is not None
    assert copy != first
    assert (copy / "made.nbi").read_bytes() == b"code"


def test_without_a_writable_folder_nothing_is_cached(
    named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(jit_cache.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(jit_cache.tempfile, "mkdtemp", refuse)

    assert choose_folder() is None


@pytest.mark.slow
@pytest.mark.parametrize("method", ["save_overload", "load_overload"])
def test_a_kernel_works_if_the_cache_cannot_be_read_or_written(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def double(x):  # type: ignore[no-untyped-def]
        return x + x

    monkeypatch.setattr(FunctionCache, method, refuse)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))  # an empty cache

    assert compiled(double)(21) == 42
    assert "compiled kernels cannot be" in caplog.text
