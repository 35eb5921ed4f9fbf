"""What may wait is joined with what follows; what somebody waits for never waits."""

from dataclasses import dataclass

from charlm_server.accumulator import Accumulator
from charlm_server.held import Held
from charlm_server.job import Event


@dataclass(frozen=True)
class Piece:
    num_bytes: int = 1


def outputs(num: int) -> list[Accumulator[Piece]]:
    return [Accumulator(100, lambda: None) for _ in range(num)]


def parts(of: list[Accumulator[Piece]], *, may_wait: bool = True) -> list[Event]:
    return [Event(output, Piece(), may_wait=may_wait) for output in of]


def test_one_stream_does_not_wait() -> None:
    held, one = Held(), outputs(1)

    for tick in range(1, 5):
        assert len(held.let_go(parts(one), 0.01 * tick, more_follows=True)) == 1


def test_parts_of_many_streams_wait_for_each_other() -> None:
    held, many = Held(), outputs(64)

    ticks = [held.let_go(parts(many), 1 + 0.01 * tick, more_follows=True) for tick in range(15)]

    assert [len(events) // 64 for events in ticks] == [1, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 7]


def test_what_somebody_waits_for_goes_at_once_with_all_before_it() -> None:
    held, many = Held(), outputs(64)
    held.let_go([], 1.0, more_follows=True)
    held.let_go(parts(many), 1.01, more_follows=True)

    end = Event(many[3], Piece(), closes=True)
    events = held.let_go([end], 1.02, more_follows=True)

    assert [event.output for event in events] == [many[3]] * 2
    assert events[1] is end


def test_nothing_waits_where_nothing_follows() -> None:
    held, many = Held(), outputs(64)
    held.let_go([], 1.0, more_follows=True)
    held.let_go(parts(many), 1.01, more_follows=True)

    assert len(held.let_go([], 1.02, more_follows=False)) == 64


def test_a_full_output_does_not_wait_for_more() -> None:
    held, many = Held(), outputs(64)
    many[5].count(Piece(101))
    held.let_go([], 1.0, more_follows=True)

    events = held.let_go(parts(many), 1.01, more_follows=True)

    assert [event.output for event in events] == [many[5]]
