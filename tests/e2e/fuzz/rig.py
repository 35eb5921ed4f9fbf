"""A server with small bounds to be called at random, and what must be left when all is over."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from charlm_model import checkpoint as checkpoints
from charlm_server.app import ADMIN, SERVICES, App
from charlm_server.config.limits import Limits
from charlm_server.config.settings import ServeConfig
from charlm_server.models.loading import serve_checkpoint
from charlm_server.models.registry import Models
from charlm_server.rpc.disabled_services import OPTIONAL_SERVICES
from tests.e2e.fuzz.calls import Fuzz
from tests.e2e.fuzz.messages import Messages, Names
from tests.server.wire import LATIN, checkpoint_of, vocabulary_of

KINDS = [("lstm", "char"), ("transformer", "byte"), ("gru", "pieces")]
LIMITS = Limits(max_prompt_tokens=500, max_new_tokens=60, max_score_items=40, max_outputs=4)
PATTERNS = ["[a-c]+", "(the|a) fox", "\\d{4}", "(a|b)*a(a|b){3}", "[^a]", "(", "a{999999}", ".*"]
QUIET_S = 30.0


class Log(logging.Handler):
    """Keeps what the server logs about faults of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@dataclass
class Rig:
    """A running server and its fuzz."""

    app: App
    models: Models
    fuzz: Fuzz
    log: Log = field(default_factory=Log)

    async def leaks(self) -> list[str]:
        """What has not returned to where it was before the first call."""
        for model in self.models:
            try:
                await asyncio.wait_for(model.scheduler.nothing_open(), QUIET_S)
                await asyncio.wait_for(_at_rest(model.scheduler), QUIET_S)
            except TimeoutError:
                pass
        found = []
        for model in self.models:
            load = model.scheduler.load
            if model.scheduler.num_open or load.num_running or load.num_waiting or load.num_parked:
                found.append(f"{model.name}: {model.scheduler.num_open} open, {load}")
            if not await model.usage.unused_within(QUIET_S):
                found.append(f"{model.name}: {model.usage.num_calls} calls hold on to it")
        return found


async def _at_rest(scheduler: object) -> None:
    """Until the thread has noticed that its calls are over."""
    engine = scheduler._engine  # type: ignore[attr-defined]
    while engine.has_work or engine.num_running:  # noqa: ASYNC110 - a thread of its own ends it
        await asyncio.sleep(0)


def names_of(models: Models, checkpoint_names: list[str]) -> dict[str, Names]:
    """For every service: the admin's own models come and go, all others keep theirs."""
    common = {"regex": PATTERNS, "request_id": ["", "r1"]}
    served = Names({**common, "model": models.names, "models": models.names}, LATIN)
    own = ["models/x", "models/y"]
    changing = {"checkpoint": checkpoint_names, "model": own, "alias": ["models/a", "models/b"]}
    services = [service.full_name for service in [*SERVICES, *OPTIONAL_SERVICES]]
    named = Names({**served.by_field, "name": models.names}, LATIN)
    return {
        **{name: named if "ModelService" in name else served for name in services},
        ADMIN.full_name: Names(changing, LATIN),
    }


@asynccontextmanager
async def running(directory: Path, seed: int) -> AsyncIterator[Rig]:
    config = ServeConfig(
        checkpoints={},
        port=0,
        max_batch_size=8,
        threads=1,
        drain_grace_s=5.0,
        limits=LIMITS,
        admin=True,
        model_root=directory,
    )
    saved = checkpoint_of("rnn", vocabulary_of("char"))
    checkpoints.save(directory / "spare", saved.model, saved.vocabulary, {})
    models = Models(
        serve_checkpoint(f"models/{family}", checkpoint_of(family, vocabulary_of(kind)), config)
        for family, kind in KINDS
    )
    app = App(config, models)
    names = names_of(models, ["spare", "none", ".."])
    services: list[ServiceDescriptor] = list(
        {s.full_name: s for s in [*SERVICES, *OPTIONAL_SERVICES, ADMIN]}.values()
    )
    address = await app.start()
    log = Log()
    logging.getLogger().addHandler(log)
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            messages = {name: Messages(seed, each) for name, each in names.items()}
            yield Rig(app, models, Fuzz(channel, messages, services, seed), log)
    finally:
        logging.getLogger().removeHandler(log)
        await app.drain()
