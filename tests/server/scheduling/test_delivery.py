"""Events reach their calls in order, first ones at once, and the loop has time for others."""

import asyncio
from dataclasses import dataclass

from charlm_server.engine.job import Event
from charlm_server.engine.output_buffer import OutputBuffer
from charlm_server.scheduling.delivery import AT_ONCE, KEPT_TIMES, MOST_KEPT_S, Delivery
from tests.server.conftest import Clock


@dataclass(frozen=True)
class Word:
    text: str
    num_bytes: int = 1


def new_output() -> OutputBuffer[Word]:
    return OutputBuffer(1 << 20, lambda: None)


async def words_of(output: OutputBuffer[Word]) -> list[str]:
    return [word.text async for words in output.batches(1 << 20) for word in words]


def started(clock: Clock | None = None) -> Delivery:
    delivery = Delivery(clock or Clock())
    delivery.start()
    return delivery


async def test_a_call_gets_its_events_in_order() -> None:
    delivery, output = started(), new_output()
    texts = [str(number) for number in range(5 * AT_ONCE)]

    delivery.hand_over([Event(output, Word(text), is_first=text == "0") for text in texts[:30]])
    delivery.hand_over([Event(output, Word(text)) for text in texts[30:]])
    delivery.hand_over([Event(output, closes=True)])

    assert await words_of(output) == texts


async def test_first_events_do_not_wait_for_other_calls() -> None:
    delivery, crowd, newcomer = started(), new_output(), new_output()
    delivery.hand_over([Event(crowd, Word("crowd"))] * 10 * AT_ONCE)
    delivery.hand_over([Event(newcomer, Word("first"), is_first=True)])

    await newcomer.take(1)

    assert len(await crowd.take(1 << 20)) <= 2 * AT_ONCE


async def test_the_loop_runs_other_work_between_groups() -> None:
    delivery, output = started(), new_output()
    delivery.hand_over([Event(output, Word("word"))] * 4 * AT_ONCE)
    lengths = []

    while sum(lengths) < 4 * AT_ONCE:
        lengths.append(len(await output.take(1 << 20)))

    assert max(lengths) <= 2 * AT_ONCE


async def test_tokens_are_collected_longer_when_deliveries_take_longer() -> None:
    clock = Clock()
    delivery, output = started(clock), new_output()

    async def deliver(seconds: float) -> None:
        delivery.hand_over([Event(output, Word("word"))] * 2 * AT_ONCE)
        await output.take(1)
        clock.now += seconds
        while len(await output.take(1 << 20)) < AT_ONCE:
            pass
        await asyncio.sleep(0)

    assert delivery.kept_s == 0
    await deliver(0.002)
    first = delivery.kept_s
    for _ in range(30):
        await deliver(0.002)
    steady = delivery.kept_s
    for _ in range(30):
        await deliver(10.0)

    assert 0 < first < steady <= KEPT_TIMES * 0.002 < delivery.kept_s <= MOST_KEPT_S
