"""As many steps as fit the target time."""

from charlm_server.pace import Pace
from charlm_server.wait import WaitEstimate


def test_the_first_piece_is_one_step() -> None:
    assert Pace(64).num_steps(1.0) == 1


def test_steps_fit_the_target_time() -> None:
    pace = Pace(64)

    pace.record(10, 0.01)

    assert pace.num_steps(0.0055) == 5


def test_there_is_always_a_step_and_never_too_many() -> None:
    pace = Pace(64)

    pace.record(1, 1.0)

    assert pace.num_steps(0.01) == 1
    assert pace.num_steps(1000.0) == 64


def test_the_wait_is_those_ahead_over_the_rate_at_which_they_leave() -> None:
    wait = WaitEstimate()
    for second in range(5):
        wait.record(float(second))

    assert wait.seconds_for(num_ahead=9, now=4.0) == 10.0


def test_an_unknown_wait_refuses_no_one() -> None:
    assert WaitEstimate().seconds_for(num_ahead=9, now=4.0) == 0.0
