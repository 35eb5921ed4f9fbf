"""Stop sequences: an automaton that finds the first one and holds back as little as possible.

Bytes, not characters: a stop may begin or end inside a token, and every vocabulary has bytes.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StopMatch:
    """A stop sequence was completed; offsets count bytes of the whole continuation."""

    stop: bytes
    start: int
    end: int


class StopAutomaton:
    """Finds any of several byte strings in one pass over a text cut anywhere.

    `depth[node]` is the length of the longest suffix of what was read that is a proper prefix
    of a stop: exactly what must be held back, because only it can still become a stop.
    Source: Aho & Corasick (1975), "Efficient string matching".
    """

    def __init__(self, stops: Iterable[bytes]) -> None:
        self.children: list[dict[int, int]] = [{}]
        self.failure: list[int] = [0]
        self.depth: list[int] = [0]
        self.match: list[bytes | None] = [None]
        for stop in stops:
            self._insert(stop)
        self._link()

    def _insert(self, stop: bytes) -> None:
        node = 0
        for byte in stop:
            if byte not in self.children[node]:
                self._append_node(self.depth[node] + 1)
                self.children[node][byte] = len(self.children) - 1
            node = self.children[node][byte]
        if node:
            self.match[node] = stop

    def _append_node(self, depth: int) -> None:
        self.children.append({})
        self.failure.append(0)
        self.depth.append(depth)
        self.match.append(None)

    def _link(self) -> None:
        """Point each node at its longest proper suffix that is a node too, shortest first."""
        queue = deque(self.children[0].values())
        while queue:
            node = queue.popleft()
            # A stop that ends here as a suffix counts unless a longer one ends here as well.
            self.match[node] = self.match[node] or self.match[self.failure[node]]
            for byte, child in self.children[node].items():
                self.failure[child] = self.step(self.failure[node], byte)
                queue.append(child)

    def step(self, node: int, byte: int) -> int:
        """The node after one more byte."""
        while node and byte not in self.children[node]:
            node = self.failure[node]
        return self.children[node].get(byte, 0)


@dataclass(slots=True)
class StopMatcher:
    """One continuation's place in the automaton."""

    automaton: StopAutomaton
    node: int = 0
    num_read: int = 0
    found: StopMatch | None = field(default=None)

    def feed(self, data: bytes) -> None:
        """Read on; the first match ends it, and what follows is not read."""
        step, match, node = self.automaton.step, self.automaton.match, self.node
        for offset, byte in enumerate(data, start=self.num_read + 1):
            node = step(node, byte)
            stop = match[node]
            if stop is not None:
                self.found = StopMatch(stop, offset - len(stop), offset)
                break
        self.node, self.num_read = node, self.num_read + len(data)

    @property
    def num_held(self) -> int:
        """How many of the last bytes may be the beginning of a stop sequence."""
        return self.automaton.depth[self.node]
