"""Random calls of every method: no crash, no fault, no hang, and nothing is left behind."""

import os
from pathlib import Path

import pytest

from tests.e2e.fuzz.rig import running

NUM_CALLS = int(os.environ.get("CHARLM_FUZZ_CALLS", "1500"))

pytestmark = pytest.mark.slow


async def test_no_random_call_causes_an_internal_error_or_leaves_a_trace(tmp_path: Path) -> None:
    async with running(tmp_path, seed=1) as rig:
        found = await rig.fuzz.run(NUM_CALLS)

        assert (found.faults, rig.log.lines) == ([], [])
        assert await rig.leaks() == []
    assert found.num_calls == NUM_CALLS
    methods = {name for name, _ in found.codes}
    assert methods == {m.full_name for s in rig.fuzz.services for m in s.methods}
    assert found.num_ended("OK") > NUM_CALLS / 20
