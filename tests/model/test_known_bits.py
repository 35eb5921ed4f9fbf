"""Known bits are the same on every processor: states, tokens and compressed texts need them."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from charlm_model.gpu.placement import numerics_id
from charlm_model.kernels.cpu import ARITHMETIC
from tests.model.known_bits import digests

ROOT = Path(__file__).parents[2]
KNOWN = json.loads(Path(__file__).with_name("known_bits.json").read_text(encoding="utf-8"))
NO_AVX512 = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR"}
# numpy and torch ignore those that the processor lacks.
NO_AVX2 = {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"}
NARROW = {"NUMBA_CPU_NAME": "haswell", "ATEN_CPU_CAPABILITY": "avx2"}


def test_other_bits_are_another_arithmetic() -> None:
    # For other bits raise ARITHMETIC, so that old states and compressed texts are refused.
    assert {"arithmetic": ARITHMETIC, "digests": digests()} == KNOWN


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threads", "environment"),
    [(1, {}), (8, {}), (2, NO_AVX512), (2, NO_AVX2 | {"ATEN_CPU_CAPABILITY": "default"})],
    ids=["1-thread", "8-threads", "numpy-without-avx512", "numpy-and-torch-without-avx2"],
)
def test_no_thread_and_no_library_changes_a_bit(threads: int, environment: dict[str, str]) -> None:
    assert digests_with(threads, environment) == KNOWN["digests"]


@pytest.mark.slow
@pytest.mark.skipif("CHARLM_PROCESSORS" not in os.environ, reason="a minute: make bits")
@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_for_a_processor_without_avx512_have_the_same_bits(threads: int) -> None:
    assert digests_with(threads, NO_AVX512 | NARROW) == KNOWN["digests"]


def test_numerics_name_what_changes_bits_and_nothing_else() -> None:
    assert numerics_id() == f"charlm-{ARITHMETIC}/{platform.machine()}"


def digests_with(threads: int, environment: dict[str, str]) -> dict[str, str]:
    program = [sys.executable, "-m", "tests.model.known_bits", str(threads)]

    done = subprocess.run(
        program, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True
    )

    found: dict[str, str] = json.loads(done.stdout)
    return found
