"""A program for test_process_group: several runs in one start of processes, or in one process.

    torchrun --nproc-per-node N torchrun_program.py CORPUS FOLDER
    python torchrun_program.py CORPUS FOLDER

Every family into FOLDER/FAMILY; then an LSTM that one signal to one process stops, and that is
resumed, into FOLDER/resumed. Prints how each process saw the runs end.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from charlm_training.planning.options import SizeOptions, TrainOptions
from charlm_training.process_group import ProcessGroup, process_group_from
from charlm_training.run.session import train_in_terminal
from charlm_training.step.learner import Learner, StepResult

FAMILIES = ["lstm", "transformer"]
# Five rows for two processes: their shares are unequal.
SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_heads": 2, "num_layers": 2, "batch_size": 5, "window_length": 16,
    "dropout": 0.2, "learning_rate": 2e-3,
}  # fmt: skip
STOPPED_AT = 8


@contextmanager
def stopped_at(step: int, group: ProcessGroup) -> Iterator[None]:
    """As many steps on, the last process alone gets a signal."""
    original = Learner.step

    def make_step(learner: Learner, rate: float) -> StepResult:
        result = original(learner, rate)
        if learner.spent.steps == step and group.rank == group.size - 1:
            signal.raise_signal(signal.SIGINT)
        return result

    Learner.step = make_step  # type: ignore[method-assign]
    try:
        yield
    finally:
        Learner.step = original  # type: ignore[method-assign]


def multiply_in_float32() -> None:
    """As on a processor without bfloat16.

    Two processes add up a gradient in another order than one. In float32 that moves the loss by
    2e-7; a number rounded to bfloat16 can then move to its neighbor, 2^-8 away, and how far that
    moves the loss depends on the processor (1.3e-4 with AMX).
    """
    for instructions in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        setattr(torch.cpu, instructions, lambda: False)


def main() -> None:
    torch.set_num_threads(1)
    multiply_in_float32()
    corpus, folder = map(Path, sys.argv[1:])
    with process_group_from(os.environ) as group:

        def train(out: str, family: str, **changes: Any) -> str:
            changes |= {"family": family, "steps": 20, "size": SizeOptions(**SIZES)}
            options = TrainOptions(corpus=str(corpus), out=folder / out, **changes)
            return train_in_terminal(options, tensorboard=False, group=group).stopped_by

        ends = [train(family, family) for family in FAMILIES]
        with stopped_at(STOPPED_AT, group):
            ends.append(train("resumed", "lstm"))
        ends.append(train("resumed", "lstm", resume=True))
        print(group.rank, *ends)


if __name__ == "__main__":
    main()
