"""A wall clock that several processes share: the first one's."""

from __future__ import annotations

from dataclasses import dataclass

from charlm_training.budget import Budget, Spent, Throughput
from charlm_training.process_group import ProcessGroup


@dataclass(frozen=True, slots=True)
class SharedBudget:
    """Asks its own clock, and goes by what the first process's says."""

    own: Budget
    group: ProcessGroup

    def progress(self, spent: Spent) -> float:
        return self.group.broadcast_number(self.own.progress(spent))

    def affordable_tokens(self, throughput: Throughput) -> float:
        return self.group.broadcast_number(self.own.affordable_tokens(throughput))

    def seconds(self) -> float | None:
        return self.own.seconds()

    def begin_training(self) -> None:
        self.own.begin_training()

    def keep_back(self, seconds: float) -> None:
        self.own.keep_back(seconds)

    def spent_s(self) -> tuple[float, float]:
        return self.own.spent_s()

    def carry_over(self, spent_s: tuple[float, float]) -> None:
        self.own.carry_over(spent_s)


def shared(budget: Budget, group: ProcessGroup) -> Budget:
    """What is counted is the same everywhere already, and needs no telling."""
    return budget if group.is_single or budget.seconds() is None else SharedBudget(budget, group)
