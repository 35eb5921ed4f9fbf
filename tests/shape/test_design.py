"""The design, frozen: what these tests hold is a decision, not an accident."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("model", "training", "server", "client")
SOURCES = sorted(path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py"))
TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))
PROTOS = sorted(path.relative_to(ROOT) for path in (ROOT / "proto").rglob("*.proto"))


def lines_in(path: Path) -> int:
    return len((ROOT / path).read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_source_file_stays_readable(path: Path) -> None:
    assert lines_in(path) <= 400


@pytest.mark.parametrize("path", TESTS, ids=str)
def test_a_test_file_stays_readable(path: Path) -> None:
    assert lines_in(path) <= 500


@pytest.mark.parametrize("path", PROTOS, ids=str)
def test_a_proto_file_stays_readable(path: Path) -> None:
    assert lines_in(path) <= 300


def test_the_readme_stays_short() -> None:
    assert lines_in(Path("README.md")) <= 120


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8")))


@pytest.mark.slow
@pytest.mark.parametrize("module", ["charlm_client", "charlm_client.cli.main"])
def test_the_client_loads_no_tensors(module: str) -> None:
    heavy = {"torch", "numpy", "safetensors", "sentencepiece", "charlm_model", "charlm_server"}
    heavy |= {"opentelemetry", "prometheus_client"}
    program = f"import {module}, sys; print(*sorted({heavy!r} & set(sys.modules)))"

    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert loaded.stdout.split() == []


def test_no_folder_is_called_utils() -> None:
    vague = {"utils", "util", "common", "helpers", "misc"}

    assert not [path for path in SOURCES if vague & set(path.with_suffix("").parts)]


def test_torch_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert "torch==2.13.0" in project["optional-dependencies"]["model"]


def test_the_wheel_carries_the_license() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")

    assert project["license"] == "Apache-2.0"
    assert project["license-files"] == ["LICENSE"]
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_folder_of_tests_is_run() -> None:
    """By `make test`, or by `make chaos`."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    folders = {str(path.parent) for path in TESTS if path.name.startswith("test_")}

    run = {*settings["pytest"]["ini_options"]["testpaths"], "tests/chaos"}
    assert all(any(Path(each).is_relative_to(root) for root in run) for each in folders)
