"""The store of states: bounded, private, and faithful until the time that was promised."""

from dataclasses import replace

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from charlm_model.snapshot import Provenance, Snapshot
from charlm_model.state import State
from charlm_server.config.limits import Limits
from charlm_server.errors.base import InvalidRequest
from charlm_server.errors.states import (
    PositionNotKept,
    StateChanged,
    StateNotFound,
    StatesFull,
    StateShareTaken,
)
from charlm_server.state_store import KeptState, StateStore
from tests.server.conftest import Clock

SIZE = 4 * (3 + 5)  # bytes of each snapshot below


def snapshot(num_tokens: int = 0) -> Snapshot:
    return Snapshot(State({"hidden": torch.zeros(1, 3)}), torch.zeros(1, 5), num_tokens)


def state(owner: str = "", num_tokens: int = 0, seconds: float = 60.0) -> KeptState:
    return KeptState(
        owner=owner,
        model="models/a",
        provenance=Provenance("d", "n"),
        snapshot=snapshot(num_tokens),
        time_to_live_s=seconds,
    )


def store(clock: Clock | None = None, **limits: int) -> StateStore:
    return StateStore(Limits(**limits), clock=clock or Clock())


def test_a_caller_sees_only_its_own_states() -> None:
    states = store()
    mine, others = states.add(state("me")), states.add(state("you"))
    own = states.of("me")

    assert own.get(mine.name).name == own.use(mine.name).name == mine.name
    assert [each.name for each in own.all()] == [mine.name]
    for find in (own.get, own.use, own.delete):
        with pytest.raises(StateNotFound):
            find(others.name)


def test_a_state_lives_for_its_time_after_its_last_use() -> None:
    clock = Clock()
    states = store(clock)
    name = states.add(state(seconds=10)).name

    clock.now += 9
    assert states.use("", name).expires_at == clock.now + 10
    clock.now += 9
    assert states.get("", name).expires_at == clock.now + 1  # to look is not to use
    clock.now += 1

    with pytest.raises(StateNotFound, match="it expired"):
        states.get("", name)
    assert states.num_bytes == 0


def test_only_its_owner_sees_a_state() -> None:
    states = store()
    mine, other = states.add(state("me")), states.add(state("other"))

    for call in (states.get, states.use, states.delete):
        with pytest.raises(StateNotFound):
            call("me", other.name)
    assert states.owned_by("me") == [mine]


@pytest.mark.parametrize("limits", [{"max_states": 2}, {"max_states_bytes": 2 * SIZE + 1}])
def test_a_full_store_refuses_new_states_and_keeps_old_ones(limits: dict[str, int]) -> None:
    clock = Clock()
    states = store(clock, **limits)
    names = [states.add(state(seconds=seconds)).name for seconds in (5, 9)]

    with pytest.raises(StatesFull, match=r"limit of .* is reached") as caught:
        states.add(state())

    assert caught.value.retry_after_s == 5
    assert {kept.name for kept in states.owned_by("")} == set(names)
    clock.now += 5
    states.add(state())


@pytest.mark.parametrize("limits", [{"max_states": 4}, {"max_states_bytes": 4 * SIZE}])
def test_one_caller_cannot_fill_the_store(limits: dict[str, int]) -> None:
    clock = Clock()
    states = store(clock, **limits)
    for seconds in (7, 9):
        states.add(state("me", seconds=seconds))

    with pytest.raises(StateShareTaken, match=r"limit of .* for one caller is reached") as caught:
        states.add(state("me"))

    assert caught.value.retry_after_s == 7
    states.add(state("other"))


def test_states_of_a_full_store_can_advance() -> None:
    states = store(max_states=1, max_states_bytes=SIZE)
    kept = states.add(state())

    states.change(kept, kept.advanced(snapshot(5), is_checkpoint=False))

    assert states.get("", kept.name).snapshot.num_tokens == 5


def test_a_change_of_an_outdated_state_is_refused() -> None:
    states = store()
    known = states.add(state())
    states.change(known, known.advanced(snapshot(1), is_checkpoint=False))

    with pytest.raises(StateChanged, match="was changed: its etag is"):
        states.change(known, known.advanced(snapshot(2), is_checkpoint=False))

    assert states.get("", known.name).snapshot.num_tokens == 1


def test_a_deleted_state_is_not_restored_by_a_change() -> None:
    states = store()
    known = states.add(state())
    states.delete("", known.name)

    with pytest.raises(StateNotFound):
        states.change(known, known.advanced(snapshot(1), is_checkpoint=False))


def test_a_fork_has_the_checkpoints_up_to_its_position() -> None:
    kept = state()
    for position in (3, 7, 9):
        kept = kept.advanced(snapshot(position), is_checkpoint=position != 9)

    fork = kept.forked(7)

    assert (fork.snapshot.num_tokens, list(fork.checkpoints)) == (7, [3, 7])
    assert kept.forked(None).snapshot is kept.forked(9).snapshot is kept.snapshot
    assert fork.name != kept.name
    with pytest.raises(PositionNotKept, match=r"position is 4; .* checkpoints only at 3, 7, 9;"):
        kept.forked(4)


def test_checkpoints_are_bounded() -> None:
    states = store(max_checkpoints=1)
    kept = states.add(state())
    kept = states.change(kept, kept.advanced(snapshot(1), is_checkpoint=True))

    with pytest.raises(InvalidRequest, match="1 checkpoints, which is the most"):
        states.change(kept, kept.advanced(snapshot(2), is_checkpoint=True))


class StoreMachine(RuleBasedStateMachine):
    """After any operations in any order, promised states are kept and sizes add up."""

    names: Bundle[str] = Bundle("names")

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.states = store(self.clock, max_states=4, max_states_bytes=8 * SIZE)
        self.promised: dict[str, KeptState] = {}

    @rule(target=names, seconds=st.integers(1, 9))
    def add(self, seconds: int) -> str | object:
        try:
            kept = self.states.add(state(seconds=seconds))
        except StatesFull:
            assert len(self.promised) == 4 or self.states.num_bytes + SIZE > 8 * SIZE
            return multiple()
        self.promised[kept.name] = kept
        return kept.name

    @rule(name=names, num=st.integers(1, 9), is_checkpoint=st.booleans())
    def advance(self, name: str, num: int, is_checkpoint: bool) -> None:
        if name not in self.promised:
            return
        known = self.states.get("", name)
        further = known.advanced(snapshot(known.snapshot.num_tokens + num), is_checkpoint=True)
        further = further if is_checkpoint else replace(further, checkpoints=known.checkpoints)
        try:
            self.promised[name] = self.states.change(known, further)
        except StatesFull:
            assert self.states.num_bytes + SIZE > 8 * SIZE

    @rule(name=names)
    def use(self, name: str) -> None:
        if name in self.promised:
            self.promised[name] = self.states.use("", name)

    @rule(name=consumes(names))
    def delete(self, name: str) -> None:
        if self.promised.pop(name, None) is not None:
            self.states.delete("", name)

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds
        self.promised = {
            name: kept for name, kept in self.promised.items() if kept.expires_at > self.clock.now
        }

    @invariant()
    def keeps_its_promises(self) -> None:
        kept = self.states.owned_by("")
        assert {each.name: each for each in kept} == self.promised
        assert self.states.num_bytes == sum(each.num_bytes for each in kept) <= 8 * SIZE


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
