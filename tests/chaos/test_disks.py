"""Full and read-only disks, too few files, a clock that jumps: a sentence, and work goes on."""

import asyncio
import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from charlm_client import Client, Generation, Sampling, Stopping
from tests.chaos import form
from tests.chaos.conftest import ALPHABET
from tests.chaos.server_process import CHARLM, ServerProcess, load_when, running
from tests.server.wire import OWN_CONNECTION

KIB = 1024
NUM_FILES = 96  # that a server may open, where it wants more
DAY_S = 86_400
COMPILING_S = 300.0  # fifteen of them on a machine with nothing else to do
SMALL_DISK = "mount -t tmpfs -o size=64k,{options} tmpfs '{place}' && cd '{place}' && exec \"$@\""


def on_small_disk(place: Path, *, read_only: bool = False) -> list[str]:
    """What a command is started with, to find 64 KiB of disk at a place, and be there."""
    script = SMALL_DISK.format(options="ro" if read_only else "rw", place=place)
    return ["unshare", "-Urm", "sh", "-c", script, "sh"]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a small disk can be mounted; not every machine lets its users do that."""
    (place := tmp_path / "disk").mkdir()
    if not shutil.which("unshare") or subprocess.run([*on_small_disk(place), "true"]).returncode:
        pytest.skip("this user may not mount a disk of its own")
    return place


def run(command: Sequence[object]) -> tuple[int, str]:
    """The exit status and the standard error."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.strip()


def commands_that_write(
    server: ServerProcess, text: Path, compressed: Path
) -> dict[str, list[str]]:
    """Each writes more than a small disk takes to the file that comes last."""
    at = ["--force", "--server", server.address]
    load = ["--duration", "0.4", "--warm-up", "0.1", "--streams", "1", "--server", server.address]
    return {
        "compress": [*CHARLM, "compress", *at, str(text)],
        "decompress": [*CHARLM, "decompress", *at, str(compressed)],
        "bench serve": [*CHARLM, "bench", "serve", *load, "--plot"],
    }


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    path.write_text(ALPHABET.replace("\n", "") * 8_000, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def served(fox: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running(tmp_path_factory.mktemp("logs"), [fox]) as server:
        yield server
        assert server.stop() == 0
        assert server.faults() == []


def test_a_full_disk_is_reported_and_leaves_no_partial_file(
    served: ServerProcess, text: Path, disk: Path, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    compressed = tmp_path / "text.charlm"
    commands = commands_that_write(served, text, compressed)
    assert run([*commands["compress"], compressed]) == (0, "")
    listing = ["sh", "-c", '"$@"; status=$?; ls -A >&2; exit $status', "sh"]
    for name in ("compress", "decompress"):
        told = run([*on_small_disk(disk), *listing, *commands[name], "out"])
        assert told == (1, "charlm: out cannot be written: No space left on device.")
        assert run([*commands[name], tmp_path / "out"]) == (0, "")  # and then it can
    figure("full disk: clients say so in a sentence, status 1, no half file; again with room: done")


def test_a_read_only_disk_is_reported(served: ServerProcess, text: Path, disk: Path) -> None:
    commands = commands_that_write(served, text, text)
    for name in ("compress", "bench serve"):
        told = run([*on_small_disk(disk, read_only=True), *commands[name], "out.svg"])
        assert told == (1, "charlm: out.svg cannot be written: Read-only file system.")


def test_a_file_size_limit_is_reported(served: ServerProcess, text: Path, tmp_path: Path) -> None:
    command = commands_that_write(served, text, text)["compress"]

    status, said = run(["prlimit", f"--fsize={16 * KIB}", *command, tmp_path / "out"])

    assert (status, said) == (1, f"charlm: {tmp_path / 'out'} cannot be written: File too large.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["generate", "fox"], ["models", "--json"], ["--help"]])
def test_a_full_standard_output_is_reported(served: ServerProcess, arguments: list[str]) -> None:
    at = [] if "--help" in arguments else ["--server", served.address]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*CHARLM, *arguments, *at], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )

    assert done.returncode == 1
    assert done.stderr == "charlm: The output cannot be written: No space left on device.\n"


def test_a_server_that_cannot_print_its_ready_message_shuts_down_cleanly(fox: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*CHARLM, "serve", str(fox), "--port", "0"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr == "charlm: The output cannot be written: No space left on device.\n"


@pytest.mark.parametrize("read_only", [False, True] if form.IS_LONG else [False])
async def test_a_server_needs_no_disk(
    read_only: bool, fox: Path, disk: Path, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Its compiled code is kept on one where it can; where it cannot, it is made and forgotten."""
    nowhere = {"CHARLM_KERNELS_DIR": str(disk / "kernels"), "TMPDIR": str(disk)}
    before = on_small_disk(disk, read_only=read_only)
    with running(
        tmp_path, [fox], environment={"CHARLM_THREADS": "1", **nowhere}, before=before
    ) as server:
        async with Client(server.address, timeout_s=COMPILING_S) as client:
            generation = await client.generate("the", model="fox")
        assert server.stop() == 0
        said = server.log.read_text(encoding="utf-8")
    assert generation.outputs[0].data
    assert "Traceback" not in said
    if not read_only:
        assert "compiled kernels cannot be cached: No space left on device" in said
    figure(
        f"a server on a {'read-only' if read_only else 'full'} disk: serves, compiled code not kept"
    )


async def test_a_server_out_of_file_descriptors_serves_open_connections_and_recovers(
    fox: Path, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    endless = Stopping(max_new_tokens=100_000, ignore_end_of_text=True)
    one = Stopping(max_new_tokens=1)
    few = ["prlimit", f"--nofile={NUM_FILES}"]
    with running(tmp_path, [fox], before=few) as server:
        async with Client(server.address) as old:
            stream = aiter(old.stream_generate("fox", model="fox", stopping=endless))
            await anext(stream)
            async with AsyncExitStack() as crowd:
                channels = [
                    await crowd.enter_async_context(lone_channel(server.address))
                    for _ in range(2 * NUM_FILES)
                ]
                found = await asyncio.gather(*map(is_let_in, channels))
                num_refused = found.count(False)
                await anext(stream)
                await old.generate("fox", model="fox", stopping=one)
            async with Client(server.address) as new:
                await new.generate("fox", model="fox", stopping=one)
        assert server.stop() == 0
        assert server.faults() == []
    assert 0 < num_refused < len(found)
    figure(
        f"out of files ({NUM_FILES}): of {len(found)} connections {num_refused} got none, those "
        "there were served, and once some left, newcomers too"
    )


def lone_channel(address: str) -> grpc.aio.Channel:
    """With a connection of its own."""
    return grpc.aio.insecure_channel(address, options=OWN_CONNECTION)


async def is_let_in(channel: grpc.aio.Channel) -> bool:
    try:
        await asyncio.wait_for(channel.channel_ready(), 3.0)
    except TimeoutError:
        return False
    return True


class WallClock:
    """Of a server, which every library in it reads from a file: libfaketime."""

    def __init__(self, path: Path) -> None:
        self._path = path
        (folder,) = importlib.util.find_spec("libfaketime").submodule_search_locations or ()
        (library,) = Path(folder).rglob("libfaketime.so.1")
        self.environment = {
            "CHARLM_THREADS": "1",
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # a clock that is set wrong counts seconds well
        }
        self.set(0)

    def set(self, days: int) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(f"{days:+d}d", encoding="ascii")
        fresh.replace(self._path)


async def test_a_clock_that_jumps_changes_nothing(
    fox: Path, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    """Days to and fro: no deadline passes, no state expires, no wait lasts longer."""
    clock = WallClock(tmp_path / "clock")
    with running(tmp_path, [fox, "--admin"], environment=clock.environment) as server:
        async with Client(server.address, timeout_s=60.0) as client:

            def asked() -> Coroutine[Any, Any, Generation]:
                stopping = Stopping(max_new_tokens=20_000, ignore_end_of_text=True)
                return client.generate(
                    "fox", model="fox", sampling=Sampling(seed=7), stopping=stopping
                )

            undisturbed = await asked()
            state = await client.states.create("the fox", model="fox", time_to_live_s=60.0)
            for days in (1, -1, 30, 0):
                answer = asyncio.create_task(asked())
                await load_when(client, "num_running", 1)
                clock.set(days)
                assert (await answer).outputs == undisturbed.outputs
                told, _ = await client.states.advance(state.name, " jumps")
                assert round((told.expire_time - state.expire_time).total_seconds() / DAY_S) == days
        assert server.stop() == 0
        assert server.faults() == []
    figure("clock jumps of 1 to 31 days during calls: the same answers, no deadline, no state lost")
