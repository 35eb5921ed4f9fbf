"""A model in memory behind gRPC, in a process of its own, for benchmarks."""

import asyncio
import logging
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from charlm_model.checkpoint import Checkpoint
from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.text.vocabulary import CharVocabulary
from charlm_server.app import App, freeze_collector
from charlm_server.config.settings import ServeConfig
from charlm_server.models.loading import serve_checkpoint
from charlm_server.models.registry import Models
from charlm_server.observing.log_format import JsonFormat

NAME = "random"
START_S, STOP_S = 120.0, 30.0


@contextmanager
def served(
    config: ModelConfig, characters: str, *, threads: int = 1, logs: bool = False, **settings: Any
) -> Iterator[str]:
    """Random weights under NAME; gives the server's address.

    With `logs` every call is a line of JSON to nowhere; `settings` are those of ServeConfig.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    settings = {"checkpoints": {}, "port": 0, "threads": threads, **settings}
    arguments = (config, characters, settings, logs, theirs)
    process = context.Process(target=_serve, args=arguments, daemon=True)
    process.start()
    try:
        if not ours.poll(START_S):
            raise TimeoutError(f"The server did not start within {START_S:.0f} seconds.")
        yield ours.recv()
    finally:
        ours.close()  # the server ends when it cannot hear us
        process.join(STOP_S)
        process.kill()


def _serve(
    config: ModelConfig, characters: str, settings: dict[str, Any], logs: bool, parent: Connection
) -> None:
    if logs:
        handler = logging.FileHandler(os.devnull)
        handler.setFormatter(JsonFormat())
        logging.basicConfig(level=logging.INFO, handlers=[handler])
    asyncio.run(_serve_until_closed(config, characters, ServeConfig(**settings), parent))


async def _serve_until_closed(
    config: ModelConfig, characters: str, serving: ServeConfig, parent: Connection
) -> None:
    freeze_collector()
    checkpoint = Checkpoint(
        model=build(config).eval(),
        vocabulary=CharVocabulary(characters),
        report={},
        digest="0" * 64,
    )
    app = App(serving, Models([serve_checkpoint(f"models/{NAME}", checkpoint, serving)]))
    parent.send(await app.start())
    await asyncio.to_thread(parent.poll, None)
    await app.drain(0.0)
