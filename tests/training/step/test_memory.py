"""What a step frees is there for the next one."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from charlm_training.step.memory import keep_memory

keep_memory()
faults = []
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.zeros(size * 2**20, dtype=torch.uint8) for size in range(1, 10)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(*faults)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of Linux's libc")
def test_freed_memory_is_used_again() -> None:
    """In a process of its own: the setting stays."""
    command = [sys.executable, "-c", PROGRAM]

    first, second = map(int, subprocess.check_output(command, text=True).split())

    assert second < first / 4
