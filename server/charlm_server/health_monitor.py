"""Sets the statuses of the health service from the progress of the engines."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from charlm_model.sampling.params import SamplingParams
from charlm_model.text.vocabulary import END_OF_TEXT_ID
from charlm_server.engine.generation import Stopping
from charlm_server.engine.sequence import GenerationJob
from charlm_server.engine.token_columns import Returns
from charlm_server.errors.base import CharlmError
from charlm_server.models.registry import LoadedModel, Models
from charlm_server.rpc.services.health import Health

logger = logging.getLogger(__name__)

CHECKS_PER_BOUND = 4  # a stuck engine is noticed within 1.25 times the bound


class HealthMonitor:
    """Checks every engine periodically, since one that is stuck in a step cannot report it.

    A model is serving while its engine's thread is alive and, if it has work, completed some of it
    within the bound; failed work does not count. The server and its services are serving while
    every model is: a stuck thread ends only with its process, so the supervisor should replace the
    process. An idle engine whose last call failed gets a probe of one token: so one bad call does
    not make it unhealthy, and its recovery is noticed without calls.
    """

    def __init__(
        self, health: Health, services: Iterable[str], models: Models, stuck_after_s: float
    ) -> None:
        self._health, self._services, self._models = health, ["", *services], models
        self._stuck_after_s = stuck_after_s
        self._are_healthy: dict[str, bool] = {}
        self.probes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(self._stuck_after_s / CHECKS_PER_BOUND)
            self.check()

    def check(self) -> None:
        """Report to the health service what has changed since the last check."""
        are_healthy = {model.name: self.is_healthy(model) for model in self._models}
        for old in self._models.replaced:  # calls with kept states still use it
            are_healthy[old.name] &= self.is_healthy(old)
        are_healthy |= {alias: are_healthy[name] for alias, name in self._models.aliases.items()}
        for name, is_healthy in are_healthy.items():
            if is_healthy != self._are_healthy.get(name):
                self._tell(name, is_healthy)
        for name in self._are_healthy.keys() - are_healthy.keys():
            self._health.forget(name)
        if all(are_healthy.values()) != all(self._are_healthy.values()) or not self._are_healthy:
            for service in self._services:
                self._health.set(service, is_serving=all(are_healthy.values()))
        self._are_healthy = are_healthy
        for model in self._models:
            if model.scheduler.is_in_doubt:
                self._probe(model)

    def _probe(self, model: LoadedModel) -> None:
        task = asyncio.create_task(probe(model))
        self.probes.add(task)
        task.add_done_callback(self.probes.discard)

    def is_healthy(self, model: LoadedModel) -> bool:
        """Whether its engine's thread is alive and not stuck. Thread-safe."""
        scheduler = model.scheduler
        return scheduler.is_alive and scheduler.heartbeat.silent_s < self._stuck_after_s

    def _tell(self, name: str, is_healthy: bool) -> None:
        self._health.set(name, is_serving=is_healthy)
        if not is_healthy:
            logger.error(
                "%s is not serving: its engine made no progress for %g s", name, self._stuck_after_s
            )
        elif name in self._are_healthy:
            logger.warning("%s is serving again", name)


async def probe(model: LoadedModel) -> None:
    """Sample one token; the engine's heartbeat shows whether it succeeded."""
    job = GenerationJob(
        prompt_ids=[END_OF_TEXT_ID],
        params=SamplingParams(),
        seed=0,
        stopping=Stopping(max_new_tokens=1),
        returns=Returns(),
        num_outputs=1,
        bytes_per_token=1,
        output=model.output_buffer(),
    )
    with contextlib.suppress(CharlmError):
        async with model.scheduler.run(job):
            await job.output.take(1)
