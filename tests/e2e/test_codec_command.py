"""Compressing from the command line, on a real server: exact, and damage is reported."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from charlm_model.compression.frames import FRAME_BYTES

pytestmark = pytest.mark.slow

CHARLM = [sys.executable, "-m", "charlm_client"]
FOX = b"The quick brown fox jumps over the lazy dog.\n"


def charlm(*arguments: str, data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([*CHARLM, *arguments], input=data, capture_output=True, timeout=120)


def packed_by(address: str, model: str, text: bytes) -> bytes:
    finished = charlm("compress", "-", "-", "--server", address, "--model", model, data=text)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize(
    ("model", "text"),
    [
        pytest.param("fox", FOX + "다람쥐 🐿 and é\r\n".encode() + FOX, id="unknown characters"),
        pytest.param("fox", FOX + b"\xff\xfe\xc3(" + FOX, id="no UTF-8"),
        pytest.param("bytes", random.Random(1).randbytes(5_000), id="binary"),
        pytest.param("fox", b"", id="empty"),
    ],
)
def test_decompressing_restores_every_input(server_address: str, model: str, text: bytes) -> None:
    packed = packed_by(server_address, model, text)
    restored = charlm(
        "decompress", "-", "-", "--server", server_address, "--model", model, data=packed
    )

    assert (restored.returncode, restored.stdout) == (0, text), restored.stderr


def test_a_flipped_bit_loses_only_its_frame_and_is_reported(
    server_address: str, tmp_path: Path
) -> None:
    asking = ("--server", server_address, "--model", "fox")
    text = FOX * (5 * FRAME_BYTES // (2 * len(FOX)))  # three frames
    hurt = bytearray(packed_by(server_address, "fox", text))
    hurt[len(hurt) // 2] ^= 1
    target = tmp_path / "restored.txt"

    refused = charlm("decompress", "-", str(target), *asking, data=bytes(hurt))
    assert refused.returncode == 1
    assert b"The compressed data is damaged: frame 1, at byte" in refused.stderr
    assert not target.exists()

    skipped = charlm(
        "decompress", "-", str(target), *asking, "--skip-damaged-frames", "--json", data=bytes(hurt)
    )
    assert skipped.returncode == 3
    assert json.loads(skipped.stdout)["damaged_frames"] == [{"first": 1, "count": 1}]
    restored = target.read_bytes()
    assert restored == text[:FRAME_BYTES] + text[2 * FRAME_BYTES :]


def test_another_model_is_refused(server_address: str) -> None:
    packed = packed_by(server_address, "fox", FOX)

    refused = charlm(
        "decompress", "-", "-", "--server", server_address, "--model=bytes", data=packed
    )

    assert (refused.returncode, refused.stdout) == (1, b"")
    assert b"name the model that compressed it" in refused.stderr


@pytest.mark.parametrize("model", ["fox", "bytes"])
def test_a_long_text_takes_the_bits_of_the_model_and_a_hundredth(
    server_address: str, model: str, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_bytes(FOX * 2_000)

    finished = charlm(
        "compress", str(tmp_path / "plain"), str(tmp_path / "packed"),
        "--json", "--server", server_address, "--model", model,
    )  # fmt: skip

    told = json.loads(finished.stdout)
    assert told["num_compressed_bytes"] == (tmp_path / "packed").stat().st_size
    # Fewer than the model's bits only where a frame is stored as it is.
    is_stored = told["num_compressed_bytes"] > told["num_text_bytes"]
    assert is_stored or told["model_bits"] < 8 * told["num_compressed_bytes"]
    assert 8 * told["num_compressed_bytes"] <= 1.01 * told["model_bits"]
