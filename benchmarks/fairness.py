"""What a busy caller costs another: waits alone, beside it in turns, and behind it in one line.

    python benchmarks/fairness.py

A server with 8 rows; the busy caller has 100 calls of 256 characters open all the time, the other
asks for 32 characters, again and again. With a token of its own it takes turns; with the busy
caller's token it is the same caller, and its calls stand in one line: first come, first served.
At last the busy caller holds all rows with calls that do not end before the other's have.
"""

import asyncio
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import grpc
import torch

from charlm.v1 import generation_pb2 as gen
from charlm.v1 import generation_pb2_grpc
from charlm_model.checkpoint import save
from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.text.vocabulary import CharVocabulary

NUM_BUSY, NUM_ASKED = 100, 20
ROWS, ENDLESS = 8, 400_000  # characters: half a minute
BUSY, OTHER = "busy", "other"
SERVE = [sys.executable, "-m", "charlm_server", "--port", "0", "--max-batch-size", str(ROWS)]


def prepare(folder: Path) -> list[str]:
    """A checkpoint with random weights and a file of tokens; the arguments that serve them."""
    vocabulary = CharVocabulary.from_text("abcdefghijklmnopqrstuvwxyz .\n")
    torch.manual_seed(1)
    model = build(
        ModelConfig(family="lstm", vocab_size=vocabulary.size, num_layers=2, hidden_size=256)
    )
    save(folder / "lstm", model, vocabulary, {})
    blocks = [
        f'[[tokens]]\nname = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n'
        'roles = ["generate"]\n'
        for name in (BUSY, OTHER)
    ]
    (folder / "tokens.toml").write_text("\n".join(blocks))
    return [str(folder / "lstm"), "--tokens", str(folder / "tokens.toml")]


async def seconds(channel: grpc.aio.Channel, token: str, length: int) -> float:
    """How long one call takes."""
    request = gen.GenerateRequest(
        model="models/lstm", stopping={"max_new_tokens": length, "ignore_end_of_text": True}
    )
    started = time.monotonic()
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    await stub.Generate(request, metadata=(("authorization", f"Bearer {token}"),))
    return time.monotonic() - started


async def keep_busy(channel: grpc.aio.Channel, length: int) -> None:
    while True:
        await seconds(channel, BUSY, length)


@asynccontextmanager
async def busy_caller(channel: grpc.aio.Channel, num: int, length: int) -> AsyncIterator[None]:
    """So many calls of the busy caller are open all the time."""
    busy = [asyncio.create_task(keep_busy(channel, length)) for _ in range(num)]
    await seconds(channel, OTHER, 1)  # those before it were begun
    try:
        yield
    finally:
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


async def measure(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        alone = [await seconds(channel, OTHER, 32) for _ in range(NUM_ASKED)]
        async with busy_caller(channel, NUM_BUSY, 256):
            in_turns = [await seconds(channel, OTHER, 32) for _ in range(NUM_ASKED)]
            in_line = [await seconds(channel, BUSY, 32) for _ in range(NUM_ASKED // 4)]
        async with busy_caller(channel, ROWS, ENDLESS):
            held = [await seconds(channel, OTHER, 32) for _ in range(NUM_ASKED)]
    cases = {"alone": alone, "in turns": in_turns, "in one line": in_line, "all rows held": held}
    for name, waits in cases.items():
        ratio = median(waits) / median(alone)
        print(f"{name}: median {1000 * median(waits):.0f} ms, {ratio:.1f} times as long as alone")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [*SERVE, *prepare(Path(folder))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                asyncio.run(measure(server.stdout.readline().strip().rsplit(" ", 1)[-1]))
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
