"""Models are changed from the command line, and by a signal."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from charlm_client.client import Client
from charlm_client.errors import InvalidRequest

pytestmark = pytest.mark.slow

CHARLM = [sys.executable, "-m", "charlm_client"]


@pytest.fixture
def server(checkpoints: Path, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    (root := tmp_path / "root").mkdir()
    flags = ["--port", "0", "--admin", "--model-root", str(root)]
    command = [*CHARLM, "serve", str(checkpoints / "fox"), *flags]
    environment = {**os.environ, "CHARLM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield process
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture
def address(server: "subprocess.Popen[str]") -> str:
    assert server.stdout is not None
    return server.stdout.readline().strip().rsplit(" ", 1)[-1]


def admin(address: str, *arguments: str) -> str:
    command = [*CHARLM, "admin", *arguments, "--server", address]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return finished.stdout + finished.stderr


async def test_models_are_loaded_renamed_and_unloaded(
    server: "subprocess.Popen[str]", address: str, checkpoints: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoints / "bytes", tmp_path / "root" / "new")

    assert "models/newer" in admin(address, "load", "new", "--as", "newer")
    assert "it is new" in admin(address, "alias", "best", "newer")
    assert "models/newer  running 0" in admin(address, "list")
    assert "points to models/newer" in admin(address, "unload", "newer")
    assert "has no checkpoint '../new'" in admin(address, "load", "../new", "--as", "x")
    async with Client(address) as client:
        with pytest.raises(InvalidRequest):
            await client.admin.unload_model("newer")
        await client.admin.unload_model("best")
        await client.admin.unload_model("newer")
        assert await client.only_model() == "models/fox"


async def test_a_signal_makes_the_server_look_for_new_models(
    server: "subprocess.Popen[str]", address: str, checkpoints: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoints / "bytes", tmp_path / "root" / "late")
    async with Client(address) as client:
        watch = client.watch_health("models/late")
        assert await anext(watch) is False
        server.send_signal(signal.SIGHUP)
        assert await anext(watch) is True
