"""Parts are joined for a slow reader, bounded in number and never lost."""

import asyncio
from dataclasses import dataclass

import pytest

from charlm_server.engine.output_buffer import Accumulator


@dataclass(frozen=True)
class Piece:
    num_bytes: int


def filled(*sizes: int, bound: int = 100) -> tuple[Accumulator[Piece], list[str]]:
    rooms: list[str] = []
    accumulator: Accumulator[Piece] = Accumulator(bound, lambda: rooms.append("room"))
    for size in sizes:
        accumulator.count(Piece(size))
        accumulator.add(Piece(size))
    return accumulator, rooms


async def test_a_taker_gets_all_there_is() -> None:
    accumulator, _ = filled(1, 2, 3)

    assert await accumulator.take(100) == [Piece(1), Piece(2), Piece(3)]


async def test_a_message_is_bounded() -> None:
    accumulator, _ = filled(40, 40, 40)

    assert await accumulator.take(100) == [Piece(40), Piece(40)]
    assert await accumulator.take(100) == [Piece(40)]


async def test_a_part_larger_than_the_bound_still_leaves() -> None:
    accumulator, _ = filled(400)

    assert await accumulator.take(100) == [Piece(400)]


async def test_a_taker_waits_for_the_first_part() -> None:
    accumulator, _ = filled()
    taking = asyncio.create_task(accumulator.take(100))
    await asyncio.sleep(0)  # let it begin to wait

    accumulator.add(Piece(1))

    assert await taking == [Piece(1)]


async def test_the_end_comes_after_the_last_part() -> None:
    accumulator, _ = filled(1)
    accumulator.close()

    assert [parts async for parts in accumulator.batches(100)] == [[Piece(1)]]


async def test_an_error_is_raised_after_the_parts_before_it() -> None:
    accumulator, _ = filled(1)
    accumulator.close(ValueError("broken"))

    assert await accumulator.take(100) == [Piece(1)]
    with pytest.raises(ValueError, match="broken"):
        await accumulator.take(100)


async def test_a_full_accumulator_says_when_half_of_it_is_gone() -> None:
    accumulator, rooms = filled(60, 60, 20)

    assert accumulator.is_full
    await accumulator.take(60)
    assert rooms == []
    await accumulator.take(60)
    assert rooms == ["room"]
    assert accumulator.has_room


async def test_what_is_counted_but_not_yet_delivered_waits_too() -> None:
    accumulator, _ = filled()

    accumulator.count(Piece(101))

    assert accumulator.is_full
