"""A program for test_storm: many callers on one connection, each gone before its answer is whole.

    python -m tests.chaos.leaver ADDRESS AUTHORITY TOKEN MODEL SEED CALLERS

Prints the number of callers that have come so far, line by line, so that its parent process can
kill it in the middle. A caller cancels after some messages, lets its deadline pass, closes its
side early, or stays to the end.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

from charlm_client import CharlmError, Client, Sampling, Security, Stopping

NUM_SIDE_BY_SIDE = 32
# What a caller may be told that goes when it pleases.
EXPECTED = {"DeadlineExceeded", "QueueFull", "StateNotFound"}

Call = Callable[[Client, str, Random], Awaitable[None]]


async def stream(client: Client, model: str, random: Random) -> None:
    stopping = Stopping(
        max_new_tokens=random.choice((1, 50, 2_000, 100_000)), ignore_end_of_text=True
    )
    leaves_after = random.choice((0, 0, 1, 2, 5))
    prompt = "the fox " * random.choice((0, 1, 20, 500))
    async with client.stream_generate(
        prompt,
        model=model,
        sampling=Sampling(seed=1),
        stopping=stopping,
        num_outputs=random.choice((1, 1, 3)),
    ) as generation:
        num_chunks = 0
        if not leaves_after:
            return
        async for _ in generation:
            num_chunks += 1
            if num_chunks >= leaves_after:
                return


async def generate(client: Client, model: str, random: Random) -> None:
    stopping = Stopping(max_new_tokens=random.choice((1, 300)), ignore_end_of_text=True)
    await _given_up(random, client.generate("fox", model=model, stopping=stopping))


async def score(client: Client, model: str, random: Random) -> None:
    texts = ["the dog " * random.choice((1, 30))] * random.choice((1, 8))
    await _given_up(random, client.score(texts, model=model))


async def keep(client: Client, model: str, random: Random) -> None:
    """A state that dies by itself, or is deleted."""
    state = await client.states.create("the fox", model=model, time_to_live_s=1.0)
    await _given_up(random, client.states.advance(state.name, " jumps" * 50))
    await client.states.delete(state.name)


async def _given_up(random: Random, answer: Awaitable[object]) -> None:
    task = asyncio.ensure_future(answer)
    patience_s = random.choice((0.0, 0.001, 0.01, 30.0))
    done, _ = await asyncio.wait([task], timeout=patience_s)
    if not done:
        task.cancel()
    await asyncio.gather(task, return_exceptions=task.cancelled() or not done)


CALLS: tuple[Call, ...] = (stream, stream, stream, generate, score, keep)


async def callers(
    address: str, security: Security, model: str, seed: int, num: int
) -> Counter[str]:
    numbers = iter(range(num))
    ends: Counter[str] = Counter()

    async def one_after_another(client: Client) -> None:
        for number in numbers:
            random = Random(f"{seed} {number}")
            try:
                await random.choice(CALLS)(client, model, random)
            except CharlmError as error:
                ends[type(error).__name__] += 1
            print(number + 1, flush=True)

    async with (
        Client(address, timeout_s=60.0, security=security) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(NUM_SIDE_BY_SIDE):
            group.create_task(one_after_another(client))
    return ends


def main() -> None:
    address, authority, token, model, seed, num = sys.argv[1:]
    security = Security(ca=Path(authority), token=token)
    ends = asyncio.run(callers(address, security, model, int(seed), int(num)))
    if unexpected := set(ends) - EXPECTED:
        raise SystemExit(f"callers were told {unexpected}")


if __name__ == "__main__":
    main()
