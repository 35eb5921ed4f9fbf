"""No package imports in circles or in long chains, and none has many modules at its top."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
MOST_AT_THE_TOP = 16


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("import_depth", ROOT / ".ci" / "import_depth.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DEPTH = script()


@pytest.mark.parametrize("package", DEPTH.LIMITS)
def test_import_chains_are_short_and_never_close_to_a_circle(package: str) -> None:
    chain = DEPTH.longest_chain(package)  # raises CycleError where there is a circle

    assert len(chain) <= DEPTH.LIMITS[package], " > ".join(chain)


@pytest.mark.parametrize("package", DEPTH.LIMITS)
def test_a_package_has_few_modules_at_its_top(package: str) -> None:
    folder = ROOT / package.removeprefix("charlm_") / package

    assert len(list(folder.glob("*.py"))) <= MOST_AT_THE_TOP
