"""A command ends in a sentence and with a status."""

import errno
import os
from pathlib import Path

import pytest

from charlm_client.cli import exit_codes
from charlm_client.cli.exit_codes import exiting_with_a_message
from charlm_client.errors import QueueFull


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the standard output was given up: the real one is pytest's."""
    found: list[bool] = []
    monkeypatch.setattr(exit_codes, "_discard_unwritten_output", lambda: found.append(True))
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
    with pytest.raises(SystemExit) as end, exiting_with_a_message():
        raise error

    assert end.value.code == status
    assert capsys.readouterr().err == said
    assert bool(forgotten) == isinstance(error, OSError)


def test_a_status_passes() -> None:
    with pytest.raises(SystemExit) as end, exiting_with_a_message():
        raise SystemExit(3)

    assert end.value.code == 3
