"""`charlm bench serve` against a real server."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import CHARLM

pytestmark = pytest.mark.slow


def bench(address: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [*CHARLM, "bench", "serve", "--server", address, "--model", "fox", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_load_test_reports_its_measurements(server_address: str, tmp_path: Path) -> None:
    plot = tmp_path / "rates.svg"
    flags = ["--streams", "4", "--duration", "1.5", "--warm-up", "0.5", "--prompt-length", "1-9"]

    done = bench(server_address, *flags, "--output-length", "50", "--json", "--plot", str(plot))

    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["characters_per_s"] > 50
    assert 0 < results["first_character_s"]["p50"] <= results["first_character_s"]["p99"]
    assert results["errors"] == {}
    assert plot.read_text(encoding="utf-8").startswith("<svg")


def test_the_default_report_is_a_table(server_address: str) -> None:
    done = bench(server_address, "--rate", "50", "--duration", "1", "--warm-up", "0.2")

    assert done.returncode == 0, done.stderr
    assert "characters/s" in done.stdout
    assert "first character" in done.stdout


def test_invalid_options_are_refused_in_a_sentence(server_address: str) -> None:
    done = bench(server_address, "--duration", "1", "--warm-up", "2")

    assert done.returncode == 1
    assert "--warm-up is 2 s" in done.stderr


def test_a_plot_is_called_what_it_is(tmp_path: Path) -> None:
    plot = tmp_path / "rates.png"

    done = bench("127.0.0.1:1", "--duration", "2", "--plot", str(plot))

    assert done.returncode == 2
    assert "rates.png would hold an SVG; end its name in .svg" in done.stderr
    assert not plot.exists()
