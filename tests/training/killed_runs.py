"""A program for test_resume: trains in processes that die again and again, until one finishes.

    python killed_runs.py KILLS SEED LONGEST_LIFE_S ARGUMENTS OF charlm train

Every life is a forked child, so that torch is imported once. Every second one is killed from
outside after a random time; the others kill themselves at a random one of the moments that a save
is made of, so that no moment is out of reach. It prints how many lives were killed, and ends with
the exit status of the last.
"""

import os
import random
import select
import signal
import sys
from collections.abc import Callable
from typing import Any

import typer

from charlm_training.cli import train
from charlm_training.step.learner import Learner

# A step with its save and its log passes about twenty of them.
MOST_MOMENTS = 200


def die_after(num_moments: int) -> None:
    """Kill this process at a moment: before or after a step, an fsync or a rename."""
    left = num_moments

    def pass_moment() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            pass_moment()
            result = function(*args, **kwargs)
            pass_moment()
            return result

        return wrapper

    for name in ("fsync", "rename", "replace"):
        setattr(os, name, deadly(getattr(os, name)))
    Learner.step = deadly(Learner.step)  # type: ignore[method-assign]


def live(arguments: list[str]) -> None:
    app = typer.Typer()
    app.command()(train)
    app(arguments, prog_name="charlm train")


def one_life(arguments: list[str], *, moments: int | None, seconds: float | None) -> int:
    """The wait status of a child that trains until it is done or dead."""
    child = os.fork()
    if child == 0:
        try:
            if moments is not None:
                die_after(moments)
            live(arguments)
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        os._exit(3)
    handle = os.pidfd_open(child)
    if seconds is not None and not select.select([handle], [], [], seconds)[0]:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    os.close(handle)
    return os.waitpid(child, 0)[1]


def main() -> int:
    kills, seed, longest = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    arguments, chance, killed = sys.argv[4:], random.Random(seed), 0
    while True:
        is_mortal, is_outside = killed < kills, killed % 2 == 1
        status = one_life(
            [*arguments, "--resume"],
            moments=chance.randrange(1, MOST_MOMENTS) if is_mortal and not is_outside else None,
            seconds=chance.uniform(0.0, longest) if is_mortal and is_outside else None,
        )
        if not os.WIFSIGNALED(status):
            print(killed)
            return os.waitstatus_to_exitcode(status)
        killed += 1


if __name__ == "__main__":
    sys.exit(main())
