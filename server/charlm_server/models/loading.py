"""Loading: from a checkpoint on disk to a model with an engine of its own."""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from charlm_model import checkpoint as checkpoints
from charlm_model.checkpoint import Checkpoint
from charlm_model.devices import device_named
from charlm_model.errors import ModelError
from charlm_model.gpu.placement import on_device
from charlm_model.language_model import LanguageModel
from charlm_model.mixture import Mixing, MixtureKind, mix
from charlm_server.config.settings import ServeConfig
from charlm_server.engine.engine import Engine, EngineConfig
from charlm_server.errors.base import ServeError
from charlm_server.models.batch_invariance import BatchInvariance, measure_batch_invariance
from charlm_server.models.registry import LoadedModel, Models
from charlm_server.scheduling.admission import QueueLimits
from charlm_server.scheduling.scheduler import Scheduler


def load_models(config: ServeConfig) -> Models:
    """Read every checkpoint and make it ready. Raises ServeError."""
    device_of(config)  # report an unusable device before reading anything
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    loaded = [load_model(name, directory, config) for name, directory in config.checkpoints.items()]
    return Models([*loaded, *mixtures_of(loaded, config)])


def mixtures_of(loaded: Iterable[LoadedModel], config: ServeConfig) -> list[LoadedModel]:
    """The configured mixtures, each with an engine of its own. Raises ServeError."""
    checkpoint_of = {model.name: model.checkpoint for model in loaded}
    mixed = []
    for name, mixture in config.mixtures.items():
        try:
            mixing = Mixing(MixtureKind(mixture.kind), mixture.weights)
            checkpoint = mix([checkpoint_of[member] for member in mixture.members], mixing)
        except ModelError as error:
            raise ServeError(f"The mixture {name} cannot be served: {error}") from error
        model = serve_checkpoint(name, checkpoint, config)
        weighed = replace(mixture, weights=mixing.normalized)
        mixed.append(replace(model, mixture=weighed))
    return mixed


def device_of(config: ServeConfig) -> torch.device:
    """The device of the models. Raises ServeError if it is not available."""
    try:
        return device_named(config.device)
    except ModelError as error:
        raise ServeError(str(error)) from error


def load_model(name: str, directory: Path, config: ServeConfig) -> LoadedModel:
    """Read and verify one checkpoint, and measure its batch invariance. Raises ServeError."""
    try:
        checkpoint = checkpoints.load(directory)
        checkpoints.verify_golden(checkpoint)
    except ModelError as error:
        raise ServeError(str(error)) from error
    except OSError as error:
        raise ServeError(f"{directory} cannot be read: {error.strerror}.") from error
    return serve_checkpoint(name, checkpoint, config)


def serve_checkpoint(name: str, checkpoint: Checkpoint, config: ServeConfig) -> LoadedModel:
    """An engine for a checkpoint in memory, on the device if its family supports it.

    Raises ServeError if there is no such device, or if the checkpoint cannot be served on it.
    """
    model, batch_invariance = _tried(name, checkpoint, config)
    vocabulary, limits = checkpoint.vocabulary, config.limits
    token_bytes = [vocabulary.token_bytes(token) for token in range(vocabulary.size)]
    engine = Engine(
        model, token_bytes, EngineConfig(batch_sizes=batch_invariance.sizes, threads=config.threads)
    )
    return LoadedModel(
        name=name,
        checkpoint=checkpoint,
        token_bytes=token_bytes,
        batch_invariance=batch_invariance,
        scheduler=Scheduler(engine, QueueLimits.of(limits)),
        limits=limits,
        load_time_s=time.time(),
        device=model.device,
    )


def _tried(
    name: str, checkpoint: Checkpoint, config: ServeConfig
) -> tuple[LanguageModel, BatchInvariance]:
    """The model on its device, verified, with its batch invariance; it is warm afterwards."""
    device = device_of(config)
    try:
        model = on_device(checkpoint.model, device)
        if model is not checkpoint.model:
            checkpoints.verify_on_device(model, checkpoint.model)
        return model, measure_batch_invariance(model, batch_sizes(config.max_batch_size))
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
