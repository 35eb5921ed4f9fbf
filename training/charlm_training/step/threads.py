"""Chooses the number of threads by measurement, for machines that are busy with other work.

Two threads of one matrix product wait for each other many thousand times a second. When one of them
is off its core, the other spins: measured with one busy neighbor on two cores, an LSTM of 256 fell
from 120,000 characters a second to 400. Short spins bring back 28,000, and a single thread 60,000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from charlm_training.budget import Budget, Clock
from charlm_training.process_group import SINGLE_PROCESS, ProcessGroup

TRIAL_S, TRIAL_STEPS = 0.15, 3
RETRIAL_INTERVAL_S = 10.0
COLD_STEPS = 3  # the first of a process are slow in any number of threads, and say nothing


@dataclass(slots=True)
class ThreadGovernor:
    """Measures training steps with all threads and with one, and continues with the faster.

    Trials cost little, because they are real steps; they are repeated, because the load changes.
    """

    clock: Clock
    set_threads: Callable[[int], None] = torch.set_num_threads
    most: int = field(default_factory=torch.get_num_threads)
    _current: int = field(init=False)
    _on_trial: list[int] = field(init=False, default_factory=list)
    _speeds: dict[int, float] = field(init=False, default_factory=dict)
    _is_settled: bool = field(init=False, default=False)
    _cold_steps_left: int = field(init=False, default=COLD_STEPS)
    _since: float = field(init=False)
    _steps: int = field(init=False, default=0)
    _tokens: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._use(self.most)
        self._start_trials()

    def count(self, num_tokens: int) -> None:
        """Count a step. May change the number of threads of the next one."""
        if self._cold_steps_left:
            self._cold_steps_left -= 1
            self._use(self._current)
            return
        self._steps += 1
        self._tokens += num_tokens
        elapsed_s = self.clock() - self._since
        if self._is_settled and elapsed_s >= RETRIAL_INTERVAL_S:
            self._start_trials()
        elif not self._is_settled and self._steps >= TRIAL_STEPS and elapsed_s >= TRIAL_S:
            self._speeds[self._current] = self._tokens / elapsed_s
            self._next_trial()

    def release(self) -> None:
        """Use all threads again."""
        self.set_threads(self.most)

    def _start_trials(self) -> None:
        self._is_settled, self._speeds = False, {}
        self._on_trial = [threads for threads in {self.most, 1} if threads != self._current]
        self._use(self._current)

    def _next_trial(self) -> None:
        if self._on_trial:
            self._use(self._on_trial.pop())
        else:
            self._is_settled = True
            self._use(max(self._speeds, key=lambda threads: self._speeds[threads]))

    def _use(self, threads: int) -> None:
        self._current = threads
        self.set_threads(threads)
        self._since, self._steps, self._tokens = self.clock(), 0, 0


@contextmanager
def governed_threads(
    budget: Budget, clock: Clock, group: ProcessGroup = SINGLE_PROCESS
) -> Iterator[ThreadGovernor | None]:
    """A governor, whose `count` is called after every step; None for a fixed number of threads.

    Only where a clock runs: the number of threads changes the last bits of gradients, and a run of
    so many steps promises the same bits. Evaluation has the same bits with any number. Processes
    that wait for each other cannot tell whose threads were slow: torchrun gives each its number.
    """
    if budget.seconds() is None or not group.is_single:
        yield None
        return
    governor = ThreadGovernor(clock)
    try:
        yield governor
    finally:
        governor.release()
