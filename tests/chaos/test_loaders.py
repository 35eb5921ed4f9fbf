"""Every reader of bytes from elsewhere, given damaged ones: a sentence, and nothing worse.

CHARLM_CHAOS_LOADS is how many damaged things each of them is given.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator

from tests.chaos.loaders import LOADERS

NUM_LOADS = int(os.environ.get("CHARLM_CHAOS_LOADS", "200"))
GOOD = ("fine", "refused")


def outcomes_of(num: int) -> Iterator[tuple[str, int, str]]:
    """Loader, number and outcome of every trial; a process that did not survive is replaced."""
    first = 0
    while first < num:
        command = [sys.executable, "-m", "tests.chaos.loader_trials", str(first), str(num)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            number, loader = -1, "none"
            for line in process.stdout:
                told = json.loads(line)
                number, loader = told.get("number", number), told.get("loader", loader)
                if "outcome" in told:
                    yield loader, number, told["outcome"]
            says = process.stderr.read()
        assert number >= first, f"the trials did not begin: {says}"
        if process.returncode:
            yield loader, number, f"the process ended with {process.returncode}: {says[-2000:]}"
        first = number + 1


def test_damaged_bytes_are_refused_in_a_sentence(figure: Callable[[str], None]) -> None:
    outcomes = list(outcomes_of(NUM_LOADS * len(LOADERS)))
    faults = [each for each in outcomes if each[2] not in GOOD]
    num_refused = Counter(loader for loader, _, outcome in outcomes if outcome == "refused")
    seen = Counter((loader, outcome.splitlines()[-1][:300]) for loader, _, outcome in faults)

    assert not faults, f"{len(faults)} faults: {seen}, the first one: {faults[0]}"
    assert all(num_refused[loader] > NUM_LOADS / 4 for loader in LOADERS if loader != "frames")
    figure(
        f"{len(LOADERS)} readers of bytes, {len(outcomes):,} damaged things: "
        f"{num_refused.total():,} refused in a sentence, the rest harmless; none hung, none took "
        "memory"
    )
