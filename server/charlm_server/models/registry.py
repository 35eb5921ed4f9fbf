"""The models of a running server: loaded, verified, certified, each with its own engine."""

import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from charlm_model import checkpoint as checkpoints
from charlm_model.checkpoint import Checkpoint
from charlm_model.devices import CPU, device_named
from charlm_model.errors import ModelError
from charlm_model.gpu.placement import arithmetic_of, on_device
from charlm_model.kernels.cpu import ARITHMETIC
from charlm_model.language_model import LanguageModel
from charlm_model.mixture import Kind, Mixing, mix
from charlm_model.text.vocabulary import Vocabulary
from charlm_server.calls.call import note_model
from charlm_server.config.limits import Limits
from charlm_server.config.mixtures import MixtureConfig
from charlm_server.config.settings import ServeConfig
from charlm_server.engine.engine import Engine, EngineConfig
from charlm_server.engine.output_buffer import Accumulator
from charlm_server.errors.base import InvalidRequest, ServeError
from charlm_server.errors.models import ModelNotFound
from charlm_server.models.batch_invariance import Certification, certify
from charlm_server.models.pins import Pins
from charlm_server.scheduling.admission import QueueLimits
from charlm_server.scheduling.scheduler import Scheduler


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoadedModel:
    """A checkpoint being served, and all that is known about it."""

    name: str
    checkpoint: Checkpoint
    token_bytes: list[bytes]
    certification: Certification
    scheduler: Scheduler
    limits: Limits
    load_time_s: float  # since the epoch
    device: torch.device = CPU  # where its engine computes
    mixture: MixtureConfig | None = None  # what it is mixed of, if it is
    pins: Pins = field(default_factory=Pins)  # the calls that looked it up

    @property
    def vocabulary(self) -> Vocabulary:
        return self.checkpoint.vocabulary

    def accumulator(self) -> Accumulator[Any]:
        """For one call's answer; room in it wakes the engine."""
        return Accumulator(self.limits.max_waiting_bytes, self.scheduler.wake)

    @property
    def numerics(self) -> str:
        """What the bits of its results depend on, beside the checkpoint."""
        return numerics_id(self.device)

    @property
    def vocab_size(self) -> int:
        return self.checkpoint.config.vocab_size


def check_named(name: str, field: str) -> None:
    """Raises InvalidRequest for a model's name that was left out."""
    if not name:
        raise InvalidRequest(field, "unset", "the name of a loaded model, which ListModels tells")


class Models:
    """All loaded models by resource name, and other names for them. They change on the loop."""

    def __init__(self, models: Iterable[LoadedModel]) -> None:
        self._by_name = {model.name: model for model in models}
        self._aliases: dict[str, str] = {}
        self.replaced: list[LoadedModel] = []  # that calls or states still need

    def __getitem__(self, name: str) -> LoadedModel:
        """By name or alias; the call may use it until it ends.

        Raises ModelNotFound, and InvalidRequest where no name was given.
        """
        check_named(name, "model")
        target = self._aliases.get(name, name)
        if target not in self._by_name:
            raise ModelNotFound(name, self.known_names)
        model = self._by_name[target]
        model.pins.pin()
        note_model(target)
        return model

    def of(self, name: str, digest: str) -> LoadedModel:
        """The very weights, replaced or not, else the model of that name. Raises ModelNotFound."""
        for model in self.replaced:
            if (model.name, model.checkpoint.digest) == (name, digest):
                if self.digest(name) == digest:
                    break  # they came back
                model.pins.pin()
                return model
        return self[name]

    def __iter__(self) -> Iterator[LoadedModel]:
        """In order of name; any thread may ask."""
        return iter([model for _, model in sorted(self._by_name.copy().items())])

    def __contains__(self, name: str) -> bool:
        """Whether a model, not an alias, has the name."""
        return name in self._by_name

    def digest(self, name: str) -> str:
        """Of the checkpoint that a loaded model is."""
        return self._by_name[name].checkpoint.digest

    @property
    def names(self) -> list[str]:
        return sorted(self._by_name)

    @property
    def known_names(self) -> list[str]:
        """What a request may ask for: names, then aliases."""
        return [*self.names, *sorted(self._aliases)]

    @property
    def aliases(self) -> dict[str, str]:
        """What each alias stands for."""
        return dict(self._aliases)

    def put(self, model: LoadedModel) -> LoadedModel | None:
        """Serve a model under its name from now on; returns the one that had the name, which
        is among the replaced."""
        old = self._by_name.get(model.name)
        self._by_name[model.name] = model
        if old is not None:
            self.replaced.append(old)
        return old

    def take(self, name: str) -> LoadedModel:
        """Serve it no longer. It exists."""
        return self._by_name.pop(name)

    def alias(self, alias: str, target: str | None) -> str | None:
        """Let a name stand for a model from now on, or for none; returns what it stood for."""
        previous = self._aliases.pop(alias, None)
        if target is not None:
            self._aliases[alias] = target
        return previous


def load_models(config: ServeConfig) -> Models:
    """Read every checkpoint and make it ready. Raises ServeError."""
    device_of(config)  # what is wrong with it is said before anything is read
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    loaded = [load_model(name, directory, config) for name, directory in config.checkpoints.items()]
    return Models([*loaded, *mixtures_of(loaded, config)])


def mixtures_of(loaded: Iterable[LoadedModel], config: ServeConfig) -> list[LoadedModel]:
    """The mixtures that were asked for, each with an engine of its own. Raises ServeError."""
    checkpoint_of = {model.name: model.checkpoint for model in loaded}
    mixed = []
    for name, mixture in config.mixtures.items():
        try:
            mixing = Mixing(Kind(mixture.kind), mixture.weights)
            checkpoint = mix([checkpoint_of[member] for member in mixture.members], mixing)
        except ModelError as error:
            raise ServeError(f"The mixture {name} cannot be served: {error}") from error
        model = serve_checkpoint(name, checkpoint, config)
        weighed = replace(mixture, weights=mixing.normalized)
        mixed.append(replace(model, mixture=weighed))
    return mixed


def device_of(config: ServeConfig) -> torch.device:
    """Where models are to compute. Raises ServeError where that is not here."""
    try:
        return device_named(config.device)
    except ModelError as error:
        raise ServeError(str(error)) from error


def load_model(name: str, directory: Path, config: ServeConfig) -> LoadedModel:
    """Read, verify and certify one checkpoint. Raises ServeError."""
    try:
        checkpoint = checkpoints.load(directory)
        checkpoints.verify_golden(checkpoint)
    except ModelError as error:
        raise ServeError(str(error)) from error
    except OSError as error:
        raise ServeError(f"{directory} cannot be read: {error.strerror}.") from error
    return serve_checkpoint(name, checkpoint, config)


def serve_checkpoint(name: str, checkpoint: Checkpoint, config: ServeConfig) -> LoadedModel:
    """An engine for a checkpoint in memory, on the device if its family can be there.

    Raises ServeError where there is no such device, or where it cannot be served there.
    """
    model, certification = _tried(name, checkpoint, config)
    vocabulary, limits = checkpoint.vocabulary, config.limits
    token_bytes = [vocabulary.token_bytes(token) for token in range(vocabulary.size)]
    engine = Engine(
        model, token_bytes, EngineConfig(batch_sizes=certification.sizes, threads=config.threads)
    )
    num, num_tokens = limits.max_queued_requests, limits.max_queued_tokens
    queue = QueueLimits(
        max_requests=num,
        max_tokens=num_tokens,
        per_caller=QueueLimits(
            max_requests=limits.share_of(num), max_tokens=limits.share_of(num_tokens)
        ),
    )
    return LoadedModel(
        name=name,
        checkpoint=checkpoint,
        token_bytes=token_bytes,
        certification=certification,
        scheduler=Scheduler(engine, queue),
        limits=limits,
        load_time_s=time.time(),
        device=model.device,
    )


def _tried(
    name: str, checkpoint: Checkpoint, config: ServeConfig
) -> tuple[LanguageModel, Certification]:
    """The model where it is to compute, verified and certified there: calls find it warm."""
    device = device_of(config)
    try:
        model = on_device(checkpoint.model, device)
        if model is not checkpoint.model:
            checkpoints.verify_on_device(model, checkpoint.model)
        return model, certify(model, batch_sizes(config.max_batch_size))
    except ModelError as error:
        raise ServeError(f"{name} cannot be served on {device}: {error}") from error
    except torch.OutOfMemoryError as error:
        raise ServeError(
            f"{name} does not fit into the memory of {device}, with rows for --max-batch-size "
            f"{config.max_batch_size}: give fewer, or serve it elsewhere."
        ) from error


def batch_sizes(max_batch_size: int) -> list[int]:
    """Powers of two and the sizes halfway, so that padding is a third at most."""
    sizes = {size for power in range(17) for size in (2**power, 3 * 2**power)}
    return sorted(size for size in sizes | {max_batch_size} if size <= max_batch_size)


def numerics_id(device: torch.device = CPU) -> str:
    """What the bits of a result depend on, beside the checkpoint."""
    return _numerics_id(device, torch.get_num_threads())


@cache  # every message of a stream may ask
def _numerics_id(device: torch.device, num_threads: int) -> str:
    if device == CPU:
        capability = torch.backends.cpu.get_cpu_capability()
        arithmetic = f"{capability}/threads-{num_threads}"
    else:
        arithmetic = arithmetic_of(device)
    kernels = f"charlm-{ARITHMETIC}/torch-{torch.__version__}"
    return f"{kernels}/{platform.machine()}/{arithmetic}"
