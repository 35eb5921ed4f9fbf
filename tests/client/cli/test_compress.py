"""Compressing files: what is written, what is refused, what is said. In processes of its own."""

import asyncio
import json
import os
import pty
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from fake_codec import DAMAGED, MARK
from fake_server import Script

pytestmark = pytest.mark.slow

TEXT = b"some text \xff\x00" * 20_000  # more than one message, and no UTF-8
CODEC = [sys.executable, "-m", "charlm_client"]
Finished = tuple[int, bytes, str]
Run = Callable[..., Awaitable[Finished]]


@pytest.fixture
def charlm(address: str) -> Run:
    async def run(*arguments: str | Path, stdin: bytes = b"") -> Finished:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *CODEC, *map(str, arguments), "--model=m", "--server", address,
            stdin=pipe, stdout=pipe, stderr=pipe,
        )  # fmt: skip
        out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return process.returncode, out, err.decode()

    return run


async def test_files_arrive_whole_and_come_back_whole(
    charlm: Run, script: Script, tmp_path: Path
) -> None:
    plain, packed, restored = (tmp_path / name for name in ("a b.txt", "a b.charlm", "back"))
    plain.write_bytes(TEXT)

    code, out, err = await charlm("compress", plain, packed)

    assert (code, err) == (0, "")
    assert packed.read_bytes() == MARK + TEXT[::-1]
    assert out.decode() == (
        "240,000 bytes of text, 240,004 compressed: 8.0001 bits per byte, "
        "the model's cross-entropy is 0.5000\n"
    )
    assert script.requests[0].model == "models/m"  # type: ignore[attr-defined]

    code, out, err = await charlm("decompress", packed, restored, "--json")

    assert (code, err, restored.read_bytes()) == (0, "", TEXT)
    told = json.loads(out)
    assert (told["num_text_bytes"], told["bits_per_byte"]) == (240_000, 8 * 240_004 / 240_000)
    assert (told["model_digest"], told["damaged_frames"]) == ("d1", [])
    assert sorted(os.listdir(tmp_path)) == ["a b.charlm", "a b.txt", "back"]


async def test_a_pipe_carries_the_data_and_nothing_else(charlm: Run) -> None:
    code, packed, err = await charlm("compress", "-", "-", stdin=b"abc")
    assert (code, packed) == (0, MARK + b"cba")
    assert err.startswith("3 bytes of text, 7 compressed")

    code, text, err = await charlm("decompress", "-", "-", "--json", stdin=packed)
    assert (code, text) == (0, b"abc")
    assert json.loads(err)["num_text_bytes"] == 3

    code, packed, err = await charlm("compress", "-", "-")
    assert (code, packed, err) == (0, MARK, "0 bytes of text, 4 compressed\n")


async def test_no_file_is_overwritten_without_force(
    charlm: Run, script: Script, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    held.write_bytes(b"precious")

    refused = await charlm("compress", "-", held, stdin=b"abc")
    assert refused[0] == 1
    assert "exists; name another file, or overwrite it with --force" in refused[2]
    assert (held.read_bytes(), script.requests) == (b"precious", [])

    forced = await charlm("compress", "-", held, "--force", stdin=b"abc")
    assert (forced[0], held.read_bytes()) == (0, MARK + b"cba")


async def test_damage_leaves_no_file_unless_it_may_be_skipped(charlm: Run, tmp_path: Path) -> None:
    hurt, target = tmp_path / "hurt", tmp_path / "target"
    hurt.write_bytes(MARK + b"cba" + DAMAGED)

    code, _, err = await charlm("decompress", hurt, target)
    assert (code, err) == (1, "charlm: frame 1 is damaged\n")
    assert os.listdir(tmp_path) == ["hurt"]

    code, _, err = await charlm("decompress", hurt, target, "--skip-damaged-frames")
    assert (code, err) == (3, "charlm: damaged and left out: frame 1 to 2\n")
    assert target.read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("missing", "-"), "missing cannot be read: No such file or directory."),
        (("-", "."), ". is a directory; name a file to write."),
        (("-", "no/such/place"), "no/such/place cannot be written: its directory does not exist."),
    ],
)
async def test_an_unreadable_or_unwritable_file_is_one_line_of_error(
    charlm: Run, arguments: tuple[str, str], sentence: str
) -> None:
    assert await charlm("compress", *arguments) == (1, b"", f"charlm: {sentence}\n")


async def test_a_device_is_written_as_it_is(charlm: Run) -> None:
    assert (await charlm("compress", "-", "/dev/null", stdin=b"abc"))[0] == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


async def test_a_terminal_gets_no_compressed_bytes(address: str) -> None:
    primary, secondary = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *CODEC, "compress", "-", "-", "--model=m", "--server", address,
        stdin=asyncio.subprocess.DEVNULL, stdout=secondary, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await process.communicate()
    os.close(primary)
    os.close(secondary)

    assert process.returncode == 1
    assert err == b"charlm: TARGET is a terminal; compressed bytes need a file or a pipe.\n"
