"""The governor finds the faster number of threads, and finds it again when the load changes."""

from typing import Any

from charlm_training.step.threads import COLD_STEPS, RETRIAL_INTERVAL_S, ThreadGovernor


class Machine:
    """Makes a step as fast as its present number of threads allows."""

    def __init__(self, clock: Any, most: int = 2) -> None:
        self.clock, self.threads = clock, most
        self.step_s = {1: 0.1, most: 0.1}
        self.governor = ThreadGovernor(clock, self.use, most)

    def use(self, threads: int) -> None:
        self.threads = threads

    def run(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now += self.step_s[self.threads]
            self.governor.count(100)


def test_all_threads_are_used_where_they_help(clock: Any) -> None:
    machine = Machine(clock)
    machine.step_s = {1: 0.1, 2: 0.05}

    machine.run(3)

    assert machine.threads == 2


def test_one_thread_is_used_where_others_wait(clock: Any) -> None:
    machine = Machine(clock)
    machine.step_s = {1: 0.1, 2: 0.8}

    machine.run(5)

    assert machine.threads == 1


def test_the_first_steps_of_a_process_decide_nothing(clock: Any) -> None:
    machine = Machine(clock)
    machine.step_s = {1: 0.1, 2: 0.8}
    for _ in range(COLD_STEPS):
        clock.now += machine.step_s[machine.threads]
        machine.governor.count(100)
    machine.step_s = {1: 0.1, 2: 0.05}

    machine.run(3)

    assert machine.threads == 2


def test_it_notices_when_the_neighbors_leave(clock: Any) -> None:
    machine = Machine(clock)
    machine.step_s = {1: 0.1, 2: 0.8}
    machine.run(5)
    machine.step_s = {1: 0.1, 2: 0.05}

    machine.run(RETRIAL_INTERVAL_S + 3)

    assert machine.threads == 2


def test_one_core_has_nothing_to_choose(clock: Any) -> None:
    machine = Machine(clock, most=1)

    machine.run(2 * RETRIAL_INTERVAL_S)

    assert machine.threads == 1


def test_all_threads_come_back_at_the_end(clock: Any) -> None:
    machine = Machine(clock)
    machine.step_s = {1: 0.1, 2: 0.8}
    machine.run(5)

    machine.governor.release()

    assert machine.threads == 2
