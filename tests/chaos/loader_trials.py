"""A program for test_loaders: reads damaged things, and says how each was taken.

    python -m tests.chaos.loader_trials FIRST LAST

Trials are numbered, and their numbers go round the loaders. Prints a line of JSON before and after
each, so that its parent process knows which one it did not survive. Memory beyond a bound cannot be
had, and no trial may take long.
"""

import faulthandler
import json
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.chaos.damage import Damage
from tests.chaos.loaders import LOADERS

SPARE_BYTES = 1 << 30  # of address space, beyond what the process has when it begins
LONGEST_TRIAL_S = 20
NO_MEMORY = ("allocate", "Cannot allocate", "out of memory")


def outcome_of(
    trial: Callable[[Damage], None], expected: tuple[type[Exception], ...], damage: Damage
) -> str:
    """`fine`, `refused`, or a fault with its traceback."""
    try:
        trial(damage)
    except expected as error:
        sentence = str(error)
        if any(words in sentence for words in NO_MEMORY):
            return f"asked for too much memory: {sentence}"
        return "refused" if sentence else f"says nothing: {error!r}"
    except Exception:  # noqa: BLE001 - every error is reported
        return traceback.format_exc()
    return "fine"


def bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    faulthandler.enable()
    first, last = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        trials = []
        for name, (expected, prepare) in LOADERS.items():
            directory = Path(folder) / name
            directory.mkdir()
            trial = prepare(directory)
            outcome_of(trial, expected, Damage("for warming up"))
            trials.append((name, trial, expected))
        bound_memory()
        for number in range(first, last):
            name, trial, expected = trials[number % len(trials)]
            print(json.dumps({"number": number, "loader": name}), flush=True)
            signal.alarm(LONGEST_TRIAL_S)
            outcome = outcome_of(trial, expected, Damage(f"{name} {number}"))
            signal.alarm(0)
            print(json.dumps({"outcome": outcome}), flush=True)


if __name__ == "__main__":
    main()
