"""Runs inside a client container: streams so many tokens and tells what came, as JSON."""

import asyncio
import hashlib
import json
import struct
import sys

from charlm_client import Client, Resuming, Sampling, Stopping

PATIENT = Resuming(max_attempts=300, longest_wait_s=1.0)  # a server takes a while to come back
TIMEOUT_S = 280.0


async def main(num_tokens: int) -> None:
    async with Client("server:50051", timeout_s=TIMEOUT_S, resuming=PATIENT) as client:
        stream = client.stream_generate(
            "The ",
            model=await client.only_model(),
            sampling=Sampling(seed=7),
            stopping=Stopping(max_new_tokens=num_tokens, ignore_end_of_text=True),
        )
        told, received = hashlib.sha256(), 0
        async for chunk in stream:
            if not received:
                print("streaming", flush=True)
            received += len(chunk.token_ids)
            for token, logprob in zip(chunk.token_ids, chunk.logprobs, strict=True):
                told.update(struct.pack("<Id", token, logprob))
    assert received == num_tokens
    print(json.dumps({"digest": told.hexdigest(), "num_resumptions": stream.num_resumptions}))


asyncio.run(main(int(sys.argv[1])))
