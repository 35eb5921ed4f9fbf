"""Contexts to the engine's prefixes: a whole text, or a state and the text after it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from charlm.v1 import context_pb2 as pb
from charlm_model import snapshot as snapshots
from charlm_model.errors import SnapshotDamaged, SnapshotError, SnapshotMismatch
from charlm_model.snapshot import Provenance, Snapshot
from charlm_server.errors.base import CharlmError, Described, InvalidRequest
from charlm_server.errors.states import StateDamaged, StateMismatch
from charlm_server.models.registry import LoadedModel, Models, check_named
from charlm_server.rpc.convert.fields import TextReader
from charlm_server.state_store import OwnedStates


@dataclass(frozen=True, slots=True)
class Prefix:
    """Ids to read after a snapshot, or a whole text that begins with the start id."""

    ids: list[int]
    snapshot: Snapshot | None = None

    @property
    def num_new_tokens(self) -> int:
        """Number of tokens still to be read, without the start."""
        return len(self.ids) - (self.snapshot is None)

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole text, with those of the snapshot."""
        return self.num_new_tokens + (self.snapshot.num_tokens if self.snapshot else 0)


class ContextResolver:
    """Resolves the contexts of one request for one model."""

    def __init__(self, reader: TextReader, model: LoadedModel, states: OwnedStates) -> None:
        self._reader, self._model, self._states = reader, model, states

    def prefix(self, context: pb.Context, field: str, appended_ids: Sequence[int] = ()) -> Prefix:
        """The tokens of a context. Raises CharlmError if it is invalid, unknown or too long."""
        snapshot = None
        if context.WhichOneof("kind") == "state":
            snapshot = self._snapshot(context.state, f"{field}.state")
            prefix = Prefix(list(appended_ids), snapshot)
        else:
            prefix = Prefix([*self._reader.context_ids(context, field), *appended_ids])
        limit = self._model.limits.max_prompt_tokens
        if prefix.num_new_tokens > limit:
            allowed = f"at most {limit} tokens"
            raise InvalidRequest(field, prefix.num_new_tokens, allowed, reason="CONTEXT_TOO_LONG")
        return prefix

    def _snapshot(self, reference: pb.StateReference, field: str) -> Snapshot:
        kind = reference.WhichOneof("kind")
        if kind is None:
            raise InvalidRequest(field, Described("unset"), "a name or an inline_state")
        if kind == "name":
            kept = self._states.use(reference.name)
            check_provenance(kept.provenance, self._model)
            return kept.snapshot
        provenance, network = self._model.provenance, self._model.checkpoint.model
        try:
            return snapshots.decode(reference.inline_state, provenance, network)
        except SnapshotError as error:
            raise state_error_from(error) from error


def requested_model(
    models: Models,
    states: OwnedStates,
    name: str,
    contexts: Iterable[pb.Context],
    *,
    field: str = "model",
) -> LoadedModel:
    """The model that the field names. If a context continues a kept state, it is the checkpoint
    that made the state, even if the name means another one now.

    Raises InvalidRequest, ModelNotFound or StateNotFound.
    """
    check_named(name, field)
    for context in contexts:
        if context.state.WhichOneof("kind") == "name":
            kept = states.get(context.state.name)
            if name in (kept.model, kept.asked_as):
                return models.of(kept.model, kept.provenance.model_digest)
    return models.get(name)


def check_provenance(provenance: Provenance, model: LoadedModel) -> None:
    """Raises StateMismatch unless the model can continue states of this provenance."""
    try:
        model.provenance.check_same(provenance)
    except SnapshotMismatch as error:
        raise state_error_from(error) from error


def state_error_from(error: SnapshotError) -> CharlmError:
    """The error to report for a snapshot that cannot be used."""
    if isinstance(error, SnapshotMismatch):
        return StateMismatch(str(error), "MODEL" if error.what == "checkpoint" else "NUMERICS")
    if isinstance(error, SnapshotDamaged):
        return StateDamaged(str(error))
    return StateMismatch(str(error), "VERSION")
