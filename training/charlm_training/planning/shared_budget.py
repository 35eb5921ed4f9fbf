"""A budget of wall-clock time for several processes: that of the first one."""

from __future__ import annotations

from dataclasses import dataclass

from charlm_training.budget import Budget, Spent, Throughput
from charlm_training.process_group import ProcessGroup


@dataclass(frozen=True, slots=True)
class SharedBudget:
    """Returns in every process what the first one measures."""

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

    def reserve(self, seconds: float) -> None:
        self.own.reserve(seconds)

    def spent_s(self) -> tuple[float, float]:
        return self.own.spent_s()

    def carry_over(self, spent_s: tuple[float, float]) -> None:
        self.own.carry_over(spent_s)


def shared(budget: Budget, group: ProcessGroup) -> Budget:
    """Steps and epochs are equal in all processes, so they need no broadcast."""
    return budget if group.is_single or budget.seconds() is None else SharedBudget(budget, group)
