"""The store of kept states, each for a time after its last use.

No state is dropped before its time: when the store is full, new states are refused.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from charlm_model.snapshot import Provenance, Snapshot
from charlm_server.config.limits import Limits
from charlm_server.errors.base import InvalidRequest
from charlm_server.errors.states import (
    PositionNotKept,
    StateChanged,
    StateNotFound,
    StatesFull,
    StateShareTaken,
)

PREFIX = "states/"
SWEEP_S = 30.0


def new_name() -> str:
    return PREFIX + secrets.token_hex(16)


def new_etag() -> str:
    return secrets.token_hex(8)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptState:
    """One version of a kept state; a change makes another of the same name."""

    owner: str  # the caller whose state it is; others do not find it
    model: str  # resource name
    asked_as: str = ""  # the name in the request, which may be an alias
    provenance: Provenance
    snapshot: Snapshot
    time_to_live_s: float
    checkpoints: Mapping[int, Snapshot] = field(default_factory=dict)  # by position, ascending
    name: str = field(default_factory=new_name)
    etag: str = field(default_factory=new_etag)
    expires_at: float = 0.0  # on the store's clock

    @property
    def num_bytes(self) -> int:
        """Of its snapshots."""
        distinct = {id(each): each for each in (self.snapshot, *self.checkpoints.values())}
        return sum(each.num_bytes for each in distinct.values())

    def at(self, position: int | None) -> Snapshot:
        """The snapshot at its end or at a checkpoint. Raises PositionNotKept."""
        if position is None or position == self.snapshot.num_tokens:
            return self.snapshot
        if position not in self.checkpoints:
            positions = sorted({*self.checkpoints, self.snapshot.num_tokens})
            raise PositionNotKept(self.name, position, positions)
        return self.checkpoints[position]

    def forked(self, position: int | None) -> "KeptState":
        """A new state that begins there, with the checkpoints before."""
        snapshot = self.at(position)
        kept = {at: each for at, each in self.checkpoints.items() if at <= snapshot.num_tokens}
        return replace(self, snapshot=snapshot, checkpoints=kept, name=new_name(), etag=new_etag())

    def advanced(self, snapshot: Snapshot, *, is_checkpoint: bool) -> "KeptState":
        """The same state after more text."""
        added = {snapshot.num_tokens: snapshot} if is_checkpoint else {}
        checkpoints = {**self.checkpoints, **added}
        return replace(self, snapshot=snapshot, checkpoints=checkpoints, etag=new_etag())


class StateStore:
    """All kept states. Any thread may use it."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.clock = limits, clock
        self._lock = threading.Lock()
        self._by_name: dict[str, KeptState] = {}
        self._sizes: dict[str, int] = {}  # in bytes, by name
        self.num_bytes = 0  # of all that is kept

    @property
    def num(self) -> int:
        """States kept, including those that expired since the last sweep."""
        return len(self._by_name)

    def add(self, state: KeptState) -> KeptState:
        """Keep a new state. Raises StatesFull."""
        with self._lock:
            self._drop_expired()
            self._refuse_too_many(state)
            return self._put(state)

    def check_room(self, owner: str) -> None:
        """Raises StatesFull if there is no room for one more, before it is made."""
        with self._lock:
            self._drop_expired()
            self._refuse_one_more(owner)

    def change(self, known: KeptState, changed: KeptState) -> KeptState:
        """Keep the changed state in place of the known one, which must still be there.

        Raises StateNotFound, StateChanged or StatesFull.
        """
        with self._lock:
            present = self._find(known.owner, known.name)
            if present.etag != known.etag:
                raise StateChanged(known.name, known.etag, present.etag)
            self._refuse_too_many(changed)
            return self._put(changed)

    def get(self, owner: str, name: str) -> KeptState:
        """Raises StateNotFound."""
        with self._lock:
            return self._find(owner, name)

    def use(self, owner: str, name: str) -> KeptState:
        """As `get`; its time to live begins anew. Raises StateNotFound."""
        with self._lock:
            return self._put(self._find(owner, name))

    def delete(self, owner: str, name: str) -> None:
        """Raises StateNotFound."""
        with self._lock:
            self._drop(self._find(owner, name).name)

    def owned_by(self, owner: str) -> list[KeptState]:
        """In order of name."""
        with self._lock:
            self._drop_expired()
            owned = self._owned(owner)
        return sorted(owned, key=lambda state: state.name)

    def of(self, owner: str) -> "OwnedStates":
        """One caller's view of the store. The owner is empty without tokens."""
        return OwnedStates(self, owner)

    def num_of(self, model: str, digest: str | None = None) -> int:
        """How many states the model made; with a digest, the model with these weights."""
        with self._lock:
            self._drop_expired()
            kept = [state for state in self._by_name.values() if state.model == model]
            return sum(digest in (None, state.provenance.model_digest) for state in kept)

    async def keep_dropping_expired(self, on_swept: Callable[[], None]) -> None:
        """Free the memory of expired states, even while the store is not used."""
        while True:
            await asyncio.sleep(SWEEP_S)
            with self._lock:
                self._drop_expired()
            on_swept()

    # --- under the lock ---

    def _put(self, state: KeptState) -> KeptState:
        kept = replace(state, expires_at=self.clock() + state.time_to_live_s)
        self.num_bytes += kept.num_bytes - self._sizes.get(kept.name, 0)
        self._by_name[kept.name], self._sizes[kept.name] = kept, kept.num_bytes
        return kept

    def _drop(self, name: str) -> None:
        del self._by_name[name]
        self.num_bytes -= self._sizes.pop(name)

    def _find(self, owner: str, name: str) -> KeptState:
        self._drop_expired()
        found = self._by_name.get(name)
        if found is None or found.owner != owner:
            raise StateNotFound(name)
        return found

    def _drop_expired(self) -> None:
        now = self.clock()
        for name in [name for name, kept in self._by_name.items() if kept.expires_at <= now]:
            self._drop(name)

    def _refuse_too_many(self, state: KeptState) -> None:
        limits = self.limits
        if len(state.checkpoints) > limits.max_checkpoints:
            allowed = (
                f"false: the state has {limits.max_checkpoints} checkpoints, which is the most"
            )
            raise InvalidRequest("checkpoint", True, allowed)
        if state.name not in self._by_name:
            self._refuse_one_more(state.owner)
        num_more = state.num_bytes - self._sizes.get(state.name, 0)
        if num_more <= 0:
            return
        if self.num_bytes + num_more > limits.max_states_bytes:
            raise StatesFull("bytes of states", limits.max_states_bytes, self._seconds_to_room())
        share, owned = limits.share_of(limits.max_states_bytes), self._owned(state.owner)
        if state.owner and sum(self._sizes[each.name] for each in owned) + num_more > share:
            raise StateShareTaken("bytes of states", share, self._seconds_to_room(state.owner))

    def _refuse_one_more(self, owner: str) -> None:
        limits = self.limits
        if len(self._by_name) >= limits.max_states:
            raise StatesFull("states", limits.max_states, self._seconds_to_room())
        share = limits.share_of(limits.max_states)
        if owner and len(self._owned(owner)) >= share:
            raise StateShareTaken("states", share, self._seconds_to_room(owner))

    def _owned(self, owner: str) -> list[KeptState]:
        return [kept for kept in self._by_name.values() if kept.owner == owner]

    def _seconds_to_room(self, owner: str | None = None) -> float:
        """Until the first one expires, or the owner's first."""
        kept = self._by_name.values() if owner is None else self._owned(owner)
        first = min((each.expires_at for each in kept), default=0.0)
        return max(first - self.clock(), 0.0)


class OwnedStates:
    """One caller's states; states of others are not found."""

    def __init__(self, store: StateStore, owner: str) -> None:
        self._store, self.owner = store, owner

    def get(self, name: str) -> KeptState:
        """Raises StateNotFound."""
        return self._store.get(self.owner, name)

    def use(self, name: str) -> KeptState:
        """As `get`; its time to live begins anew. Raises StateNotFound."""
        return self._store.use(self.owner, name)

    def delete(self, name: str) -> None:
        """Raises StateNotFound."""
        self._store.delete(self.owner, name)

    def all(self) -> list[KeptState]:
        """In order of name."""
        return self._store.owned_by(self.owner)

    def check_room(self) -> None:
        """Raises StatesFull if there is no room for one more, before it is made."""
        self._store.check_room(self.owner)
