"""A program for test_overload: one caller who asks again and again, refused or not.

    python -m tests.chaos.onlooker ADDRESS MODEL

Asks for a token, then for the model, in turns, until its standard input is closed; then prints a
line of JSON with the seconds that refusals took, and those of calls that ask for no work. It
pauses between them, so as to be no load beside the one that it looks on.
"""

import asyncio
import json
import sys
import time

from charlm_client import Client, QueueFull, Stopping

PAUSE_S = 0.02


async def look_on(address: str, model: str) -> dict[str, list[float]]:
    refused_s: list[float] = []
    plain_s: list[float] = []
    closed = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with Client(address, timeout_s=60.0) as client:
        while not closed.done():
            began = time.perf_counter()
            try:
                await client.generate("fox", model=model, stopping=Stopping(max_new_tokens=1))
            except QueueFull:
                refused_s.append(time.perf_counter() - began)
            began = time.perf_counter()
            await client.get_model(model)
            plain_s.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE_S)
    return {"refused_s": refused_s, "plain_s": plain_s}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(look_on(*sys.argv[1:]))))
