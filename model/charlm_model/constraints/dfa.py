"""Compiles syntax trees to deterministic automata: Thompson (1968), then the subset construction.

The cost is bounded by sizes, never by time, so that every machine accepts the same patterns.
Legend: S states, K classes of characters.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm_model.constraints.character_sets import Partition, Ranges, partition
from charlm_model.constraints.regex_parser import Alternation, Characters, Concatenation, Node

DEAD = -1
MAX_NFA_STATES = 50_000
MAX_STATES = 10_000
MAX_ENTRIES = 4_000_000  # of a table: 16 MB
MAX_TRANSITIONS = 2_000_000  # followed in the subset construction: about two seconds


class AutomatonTooLarge(Exception):
    """The automaton would exceed a bound: `limit`, on the number of `what`."""

    def __init__(self, what: str, limit: int) -> None:
        self.what, self.limit = what, limit
        super().__init__(f"more than {limit} {what}")


@dataclass(frozen=True, slots=True)
class Automaton:
    """A deterministic automaton over classes of characters; state 0 is the start."""

    partition: Partition
    next_SK: NDArray[np.int32]  # DEAD where nothing follows
    is_accepting_S: NDArray[np.bool_]


def automaton_of(tree: Node) -> Automaton:
    """Compile a tree. Raises AutomatonTooLarge."""
    network = _Network()
    end = network.build(tree, network.add_state())
    classes = partition(network.sets)
    subsets = _Subsets(network, classes, end)
    next_SK = np.full((len(subsets.transitions), classes.num_classes), DEAD, dtype=np.int32)
    for state, transitions in enumerate(subsets.transitions):
        next_SK[state, list(transitions)] = list(transitions.values())
    return Automaton(classes, next_SK, np.array(subsets.is_accepting))


class _Network:
    """A nondeterministic automaton: epsilon moves, and moves by a character of a set."""

    def __init__(self) -> None:
        self.sets: list[Ranges] = []
        self._num_parts = 0
        self.free: list[list[int]] = []
        self.moves: list[list[tuple[int, int]]] = []  # set, target
        self._number_of: dict[Ranges, int] = {}

    def add_state(self) -> int:
        if len(self.free) >= MAX_NFA_STATES:
            raise AutomatonTooLarge("characters once repetitions are written out", MAX_NFA_STATES)
        self.free.append([])
        self.moves.append([])
        return len(self.free) - 1

    def build(self, node: Node, start: int) -> int:
        """Add the node's texts as paths from `start`; returns the state where they end."""
        self._num_parts += 1
        if self._num_parts > 2 * MAX_NFA_STATES:
            raise AutomatonTooLarge("parts once repetitions are written out", 2 * MAX_NFA_STATES)
        if isinstance(node, Characters):
            end = self.add_state()
            self.moves[start].append((self._set(node.ranges), end))
            return end
        if isinstance(node, Concatenation):
            for part in node.parts:
                start = self.build(part, start)
            return start
        if isinstance(node, Alternation):
            ends = [self.build(part, start) for part in node.parts]
            return self._joined(ends)
        for _ in range(node.low):
            start = self.build(node.part, start)
        if node.high is None:
            return self._loop(node.part, start)
        return self._options(node.part, start, node.high - node.low)

    def _loop(self, part: Node, start: int) -> int:
        hub = self.add_state()
        self.free[start].append(hub)
        self.free[self.build(part, hub)].append(hub)
        return hub

    def _options(self, part: Node, start: int, num: int) -> int:
        ends = [start]
        for _ in range(num):
            ends.append(self.build(part, ends[-1]))
        return self._joined(ends)

    def _joined(self, ends: Iterable[int]) -> int:
        end = self.add_state()
        for each in ends:
            self.free[each].append(end)
        return end

    def _set(self, ranges: Ranges) -> int:
        if ranges not in self._number_of:
            self._number_of[ranges] = len(self.sets)
            self.sets.append(ranges)
        return self._number_of[ranges]


class _Subsets:
    """The subset construction: sets of the network's states that a text can lead to."""

    def __init__(self, network: _Network, classes: Partition, end: int) -> None:
        self._network, self._classes, self._end = network, classes, end
        self._num_transitions = 0
        self._number_of: dict[frozenset[int], int] = {}
        self._closures: list[list[int]] = []
        self.is_accepting: list[bool] = []
        self.transitions: list[dict[int, int]] = []  # class -> subset
        self._subset(frozenset([0]))
        while len(self.transitions) < len(self._closures):
            self.transitions.append(self._transitions_from(self._closures[len(self.transitions)]))

    def _transitions_from(self, closure: list[int]) -> dict[int, int]:
        targets: dict[int, set[int]] = {}
        for state in closure:
            for number, target in self._network.moves[state]:
                classes = self._classes.classes_of_set[number]
                self._count(len(classes))
                for each in classes:
                    targets.setdefault(each, set()).add(target)
        return {each: self._subset(frozenset(states)) for each, states in targets.items()}

    def _subset(self, states: frozenset[int]) -> int:
        """The number of a subset, given its states before epsilon moves."""
        if states not in self._number_of:
            closure = self._closed(states)
            key = frozenset(state for state in closure if self._network.moves[state])
            key |= {self._end} & closure
            if key not in self._number_of:
                self._number_of[key] = self._add(key)
            self._number_of[states] = self._number_of[key]
        return self._number_of[states]

    def _add(self, key: frozenset[int]) -> int:
        if len(self._closures) >= MAX_STATES:
            raise AutomatonTooLarge("states", MAX_STATES)
        if len(self._closures) * self._classes.num_classes >= MAX_ENTRIES:
            raise AutomatonTooLarge("entries (states times kinds of characters)", MAX_ENTRIES)
        self._closures.append(sorted(key))
        self.is_accepting.append(self._end in key)
        return len(self._closures) - 1

    def _closed(self, states: frozenset[int]) -> set[int]:
        closed, open_ = set(states), list(states)
        while open_:
            free = self._network.free[open_.pop()]
            self._count(len(free))
            new = [state for state in free if state not in closed]
            closed.update(new)
            open_ += new
        return closed

    def _count(self, num_transitions: int) -> None:
        self._num_transitions += num_transitions
        if self._num_transitions > MAX_TRANSITIONS:
            raise AutomatonTooLarge("transitions between states", MAX_TRANSITIONS)
