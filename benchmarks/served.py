"""A model in memory behind gRPC, in a process of its own, for benchmarks."""

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from charlm_model.checkpoint import Checkpoint
from charlm_model.config import ModelConfig
from charlm_model.families import build
from charlm_model.vocabulary import CharVocabulary
from charlm_server.app import App
from charlm_server.config import ServeConfig
from charlm_server.loaded import Models, serve_checkpoint

NAME = "random"
START_S, STOP_S = 120.0, 30.0


@contextmanager
def served(config: ModelConfig, characters: str, *, threads: int = 1) -> Iterator[str]:
    """Random weights under NAME; gives the server's address."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(config, characters, threads, theirs), daemon=True
    )
    process.start()
    try:
        if not ours.poll(START_S):
            raise TimeoutError(f"The server did not start within {START_S:.0f} seconds.")
        yield ours.recv()
    finally:
        ours.close()  # the server ends when it cannot hear us
        process.join(STOP_S)
        process.kill()


def _serve(config: ModelConfig, characters: str, threads: int, parent: Connection) -> None:
    asyncio.run(_serve_until_closed(config, characters, threads, parent))


async def _serve_until_closed(
    config: ModelConfig, characters: str, threads: int, parent: Connection
) -> None:
    checkpoint = Checkpoint(
        model=build(config).eval(),
        vocabulary=CharVocabulary(characters),
        report={},
        digest="0" * 64,
    )
    serving = ServeConfig(checkpoints={}, port=0, threads=threads)
    app = App(serving, Models([serve_checkpoint(f"models/{NAME}", checkpoint, serving)]))
    parent.send(await app.start())
    await asyncio.to_thread(parent.poll, None)
    await app.drain(0.0)
