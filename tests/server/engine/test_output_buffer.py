"""Parts are joined for a slow reader, bounded in number and never lost."""

import asyncio
from dataclasses import dataclass

import pytest

from charlm_server.engine.output_buffer import OutputBuffer


@dataclass(frozen=True)
class Piece:
    num_bytes: int


def filled(*sizes: int, bound: int = 100) -> tuple[OutputBuffer[Piece], list[str]]:
    rooms: list[str] = []
    output_buffer: OutputBuffer[Piece] = OutputBuffer(bound, lambda: rooms.append("room"))
    for size in sizes:
        output_buffer.count(Piece(size))
        output_buffer.add(Piece(size))
    return output_buffer, rooms


async def test_take_returns_all_parts() -> None:
    output_buffer, _ = filled(1, 2, 3)

    assert await output_buffer.take(100) == [Piece(1), Piece(2), Piece(3)]


async def test_a_message_is_bounded() -> None:
    output_buffer, _ = filled(40, 40, 40)

    assert await output_buffer.take(100) == [Piece(40), Piece(40)]
    assert await output_buffer.take(100) == [Piece(40)]


async def test_a_part_larger_than_the_bound_is_still_taken() -> None:
    output_buffer, _ = filled(400)

    assert await output_buffer.take(100) == [Piece(400)]


async def test_take_waits_for_the_first_part() -> None:
    output_buffer, _ = filled()
    taking = asyncio.create_task(output_buffer.take(100))
    await asyncio.sleep(0)  # let it begin to wait

    output_buffer.add(Piece(1))

    assert await taking == [Piece(1)]


async def test_the_end_comes_after_the_last_part() -> None:
    output_buffer, _ = filled(1)
    output_buffer.close()

    assert [parts async for parts in output_buffer.batches(100)] == [[Piece(1)]]


async def test_an_error_is_raised_after_the_parts_before_it() -> None:
    output_buffer, _ = filled(1)
    output_buffer.close(ValueError("broken"))

    assert await output_buffer.take(100) == [Piece(1)]
    with pytest.raises(ValueError, match="broken"):
        await output_buffer.take(100)


async def test_backpressure_ends_when_half_of_the_buffer_is_taken() -> None:
    output_buffer, rooms = filled(60, 60, 20)

    assert output_buffer.is_full
    await output_buffer.take(60)
    assert rooms == []
    await output_buffer.take(60)
    assert rooms == ["room"]
    assert output_buffer.has_room


async def test_parts_not_yet_delivered_count_for_backpressure() -> None:
    output_buffer, _ = filled()

    output_buffer.count(Piece(101))

    assert output_buffer.is_full
