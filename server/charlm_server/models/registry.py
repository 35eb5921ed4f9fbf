"""The registry of loaded models, each with an engine of its own."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from charlm_model.checkpoint import Checkpoint
from charlm_model.devices import CPU
from charlm_model.gpu.placement import numerics_id
from charlm_model.snapshot import Provenance
from charlm_model.text.vocabulary import Vocabulary
from charlm_server.config.limits import Limits
from charlm_server.config.mixtures import MixtureConfig
from charlm_server.engine.output_buffer import OutputBuffer
from charlm_server.errors.base import Described, InvalidRequest
from charlm_server.errors.models import ModelNotFound
from charlm_server.models.batch_invariance import BatchInvariance
from charlm_server.models.usage import ModelUsage
from charlm_server.scheduling.scheduler import Scheduler

BYTES_PER_LOGIT = 4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoadedModel:
    """A checkpoint that is served, with its engine."""

    name: str
    checkpoint: Checkpoint
    token_bytes: list[bytes]
    batch_invariance: BatchInvariance
    scheduler: Scheduler
    limits: Limits
    load_time_s: float  # since the epoch
    device: torch.device = CPU  # where its engine computes
    mixture: MixtureConfig | None = None  # what it is mixed of, if it is
    usage: ModelUsage = field(default_factory=ModelUsage)

    @property
    def vocabulary(self) -> Vocabulary:
        return self.checkpoint.vocabulary

    def output_buffer(self) -> OutputBuffer[Any]:
        """A buffer for one call's output; when it has room again, the engine is woken."""
        return OutputBuffer(self.limits.max_waiting_bytes, self.scheduler.wake)

    @property
    def numerics(self) -> str:
        """Identifies what its bits depend on beside the checkpoint."""
        return numerics_id(self.device)

    @property
    def provenance(self) -> Provenance:
        """What its exported states carry: only models of the same provenance read them."""
        return Provenance(self.checkpoint.digest, self.numerics)

    @property
    def state_size_bytes(self) -> int:
        """Of one exported state's values: the hidden state and the logits after it."""
        row_bytes = self.checkpoint.model.initial_state(1).num_bytes_per_row
        return row_bytes + BYTES_PER_LOGIT * self.vocab_size

    @property
    def vocab_size(self) -> int:
        return self.checkpoint.config.vocab_size


def check_named(name: str, field: str) -> None:
    """Raises InvalidRequest for a model's name that was left out."""
    if not name:
        raise InvalidRequest(
            field, Described("unset"), "the name of a loaded model; ListModels lists them"
        )


class Models:
    """All loaded models by resource name, and aliases. They change on the loop."""

    def __init__(self, models: Iterable[LoadedModel]) -> None:
        self._by_name = {model.name: model for model in models}
        self._aliases: dict[str, str] = {}
        self.replaced: list[LoadedModel] = []  # models that calls or kept states still need

    def get(self, name: str) -> LoadedModel:
        """By name or alias. Raises ModelNotFound, and InvalidRequest where no name was given."""
        check_named(name, "model")
        target = self._aliases.get(name, name)
        if target not in self._by_name:
            raise ModelNotFound(name, self.known_names)
        return self._by_name[target]

    def of(self, name: str, digest: str) -> LoadedModel:
        """The model with these weights, replaced or not, else by name. Raises ModelNotFound."""
        for model in self.replaced:
            if (model.name, model.checkpoint.digest) == (name, digest):
                if self.digest(name) == digest:
                    break  # they came back
                return model
        return self.get(name)

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
        """Names of models, then aliases."""
        return [*self.names, *sorted(self._aliases)]

    @property
    def aliases(self) -> dict[str, str]:
        """The name that each alias points to."""
        return dict(self._aliases)

    def put(self, model: LoadedModel) -> LoadedModel | None:
        """Serve a model under its name. Returns the model that it replaces, if there is one."""
        old = self._by_name.get(model.name)
        self._by_name[model.name] = model
        if old is not None:
            self.replaced.append(old)
        return old

    def take(self, name: str) -> LoadedModel:
        """Remove a model, which exists."""
        return self._by_name.pop(name)

    def alias(self, alias: str, target: str | None) -> str | None:
        """Point an alias to a model, or remove it; returns where it pointed before."""
        previous = self._aliases.pop(alias, None)
        if target is not None:
            self._aliases[alias] = target
        return previous
