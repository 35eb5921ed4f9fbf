"""A command ends in a sentence and with a status."""

import errno
import os
import signal
from pathlib import Path

import pytest

from charlm_client import endings
from charlm_client.endings import ended_in_a_sentence, heed_sigterm
from charlm_client.errors import QueueFull


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the standard output was given up: the real one is pytest's."""
    found: list[bool] = []
    monkeypatch.setattr(endings, "_forget_what_is_unwritten", lambda: found.append(True))
    return found


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (QueueFull("The queue is full.", retry_after_s=1.0), 1, "charlm: The queue is full.\n"),
        (KeyboardInterrupt(), 130, "charlm: interrupted\n"),
        (BrokenPipeError(), 1, ""),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            1,
            "charlm: The output cannot be written: No space left on device.\n",
        ),
        (
            OSError(errno.EROFS, os.strerror(errno.EROFS), str(Path("a") / "b")),
            1,
            "charlm: a/b cannot be written: Read-only file system.\n",
        ),
    ],
)
def test_every_error_is_a_sentence(
    error: BaseException,
    status: int,
    said: str,
    forgotten: list[bool],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end, ended_in_a_sentence():
        raise error

    assert end.value.code == status
    assert capsys.readouterr().err == said
    assert bool(forgotten) == isinstance(error, OSError)


def test_a_status_passes() -> None:
    with pytest.raises(SystemExit) as end, ended_in_a_sentence():
        raise SystemExit(3)

    assert end.value.code == 3


@pytest.mark.parametrize("process", [1, 2])
def test_the_first_process_of_a_container_ends_when_asked(
    process: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(endings.os, "getpid", lambda: process)
    try:
        heed_sigterm()
        if process == 1:
            with pytest.raises(SystemExit, match="143"):
                signal.raise_signal(signal.SIGTERM)
        else:
            assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, before)
