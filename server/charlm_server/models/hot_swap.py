"""Hot swap: loads, aliases and unloads models while the server runs."""

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch

from charlm_server.config.checkpoint_names import NAME
from charlm_server.config.settings import ServeConfig
from charlm_server.errors.base import InvalidRequest, ServeError
from charlm_server.errors.models import (
    CheckpointUnknown,
    CheckpointUnusable,
    ModelInUse,
    ModelNotFound,
    TooManyModels,
)
from charlm_server.errors.overload import Draining
from charlm_server.models.model_directory import ModelDirectory
from charlm_server.models.registry import LoadedModel, Models, check_named
from charlm_server.state_store import StateStore

logger = logging.getLogger(__name__)

PREFIX = "models/"
# Reads, verifies and warms the checkpoint in a directory, to be served under a name.
LoadModel = Callable[[str, Path, ServeConfig], LoadedModel]
NAMES = "models/ and 1 to 63 letters, digits, '.', '_' or '-'"


class HotSwap:
    """Makes one change at a time, on the loop; checkpoints are read on a thread."""

    def __init__(
        self,
        config: ServeConfig,
        models: Models,
        states: StateStore,
        *,
        load_model: LoadModel,
        on_change: Callable[[], None],
    ) -> None:
        self._config, self._models, self._states = config, models, states
        self._load_model, self._on_change = load_model, on_change
        self.root = None if config.model_root is None else ModelDirectory(config.model_root)
        self._one_at_a_time = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], LoadedModel] = {}
        self._is_closed = False

    async def load(self, checkpoint: str, name: str = "") -> LoadedModel:
        """Read, verify and warm a checkpoint, then serve it under the name.

        A model that had the name stays for the calls and kept states that use it.
        Raises CheckpointUnknown, CheckpointUnusable, InvalidRequest, TooManyModels or Draining.
        """
        # A checkpoint whose name no model can have is reported as unknown.
        name = checked_resource("model", name) if name else PREFIX + checkpoint
        async with self._one_at_a_time:
            self._refuse_if_closed()
            if name in self._models.aliases:
                raise InvalidRequest("model", name, "another name: this one is an alias")
            self._refuse_too_many(name, is_new=name not in self._models)
            model = await asyncio.to_thread(self._read, checkpoint, name)
            self._refuse_if_closed()
            model.scheduler.start()
            old = self._models.put(model)
            self._on_change()
        if old is not None:
            self._retire(old)
        logger.warning("%s serves %s now", name, model.checkpoint.digest)
        return model

    async def unload(self, name: str) -> None:
        """Remove an alias, or a model once its calls have ended, within a bounded time.

        Raises InvalidRequest, ModelNotFound, or ModelInUse while an alias points to the model.
        """
        async with self._one_at_a_time:
            self._refuse_if_closed()
            if name in self._models.aliases:
                self._models.alias(name, None)
                self._on_change()
                return
            self._refuse_unknown(name)
            for alias, target in self._models.aliases.items():
                if target == name:
                    raise ModelInUse(name, alias)
            retiring = self._retire_all(name)
            self._on_change()
        await asyncio.shield(asyncio.gather(*retiring))

    def _retire_all(self, name: str) -> list[asyncio.Task[None]]:
        """Retire the model and those it replaced; the tasks hold no reference to them."""
        replaced = [old for old in self._models.replaced if old.name == name]
        gone = [self._models.take(name), *replaced]
        self._models.replaced = [old for old in self._models.replaced if old not in gone]
        for model in gone:
            if model not in self._retiring.values():
                self._retire(model)
        return [task for task, model in self._retiring.items() if model in gone]

    def release(self) -> None:
        """Retire replaced models that no kept state needs."""
        for model in self._models.replaced:
            if model not in self._retiring.values() and not self._is_needed(model):
                self._retire(model)

    async def set_alias(self, alias: str, target: str) -> str | None:
        """Point an alias to a loaded model; returns where it pointed before.

        Raises InvalidRequest, ModelNotFound or TooManyModels.
        """
        checked_resource("alias", alias)
        async with self._one_at_a_time:
            self._refuse_if_closed()
            self._refuse_unknown(target)
            if alias in self._models:
                raise InvalidRequest("alias", alias, "another name: a model has this one")
            self._refuse_too_many(alias, is_new=alias not in self._models.aliases)
            previous = self._models.alias(alias, target)
            self._on_change()
        return previous

    def is_served(self, checkpoint: str) -> bool:
        """Whether the very files of a checkpoint are served under its own name."""
        name = PREFIX + checkpoint
        if self.root is None or name not in self._models:
            return False
        return self.root.digest(checkpoint) == self._models.digest(name)

    @property
    def retiring(self) -> list[LoadedModel]:
        """Models no longer served by name, which open calls or kept states still need."""
        return list({*self._retiring.values(), *self._models.replaced})

    def _is_needed(self, model: LoadedModel) -> bool:
        """Whether a kept state needs these weights, and no served model has them."""
        digest = model.checkpoint.digest
        is_served = model.name in self._models and self._models.digest(model.name) == digest
        return not is_served and self._states.num_of(model.name, digest) > 0

    async def close(self) -> list[LoadedModel]:
        """Refuse further changes; returns the models that are left to drain."""
        self._is_closed = True
        left = self.retiring
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        return left

    def _read(self, checkpoint: str, name: str) -> LoadedModel:
        if self.root is None:
            raise CheckpointUnknown(checkpoint)
        if self._config.threads is not None:
            torch.set_num_threads(self._config.threads)  # torch counts threads per thread
        directory: Path = self.root.checkpoint(checkpoint)
        try:
            return self._load_model(name, directory, self._config)
        except ServeError as error:
            raise CheckpointUnusable(checkpoint, str(error)) from error

    def _retire(self, model: LoadedModel) -> asyncio.Task[None]:
        task = asyncio.create_task(self._finish(model))
        self._retiring[task] = model
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._retiring.pop(task, None)
        gc.collect()  # modules have reference cycles and may be large
        torch.cuda.empty_cache()  # torch would keep a GPU's memory; does nothing without a GPU

    async def _finish(self, model: LoadedModel) -> None:
        """Wait for the model's calls, end those that last too long, and stop its thread.

        A replaced model that kept states need stays.
        """
        started = time.monotonic()
        await model.usage.unused_within(self._config.unload_grace_s)
        if model in self._models.replaced:
            if self._is_needed(model):
                return
            self._models.replaced.remove(model)
        if num_calls := model.usage.num_calls:
            logger.warning("%s: %d calls are ended for its unloading", model.name, num_calls)
        await model.scheduler.drain(0.0)
        await model.scheduler.close()
        seconds = time.monotonic() - started
        logger.warning("%s (%s) is gone after %.1f s", model.name, model.checkpoint.digest, seconds)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise Draining

    def _refuse_unknown(self, name: str) -> None:
        check_named(name, "model")
        if name not in self._models:
            raise ModelNotFound(name, self._models.names)

    def _refuse_too_many(self, name: str, *, is_new: bool) -> None:
        limit = self._config.limits.max_models
        num = len(self._models.names) + len(self._models.aliases) + len(self._models.replaced)
        if is_new and num >= limit:
            raise TooManyModels(limit)


def checked_resource(field: str, name: str) -> str:
    """Raises InvalidRequest unless it can be the name of a model."""
    if not name.startswith(PREFIX) or not NAME.fullmatch(name.removeprefix(PREFIX)):
        raise InvalidRequest(field, name, NAMES)
    return name
