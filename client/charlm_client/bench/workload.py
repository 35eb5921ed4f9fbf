"""What a load is made of: how many streams, when they start, how long their texts are."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from charlm_client.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Lengths:
    """Drawn uniformly, both ends included."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: str, name: str) -> "Lengths":
        """`200` or `100-300`. Raises InvalidRequest about the flag of this name."""
        least, _, most = text.partition("-")
        try:
            lengths = cls(int(least), int(most or least))
        except ValueError:
            lengths = cls(0, 0)
        if not 1 <= lengths.least <= lengths.most:
            raise InvalidRequest(
                f"{name} is {text!r}; it must be an integer from 1 up, or a range such as 100-300."
            )
        return lengths

    def drawn(self, chance: random.Random) -> int:
        return chance.randint(self.least, self.most)


@dataclass(frozen=True, slots=True)
class PlannedStream:
    """One stream to be asked for."""

    prompt_length: int
    output_length: int
    is_slow: bool  # reads slower than it could
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """A closed loop keeps `num_streams` going; an open one starts `rate` a second, come what may.

    Times are in seconds. What ends within `warm_up_s` is not counted.
    """

    num_streams: int = 64
    rate: float | None = None
    duration_s: float = 10.0
    warm_up_s: float = 1.0
    prompt_lengths: Lengths = Lengths(20, 20)
    output_lengths: Lengths = Lengths(256, 256)
    slow_share: float = 0.0
    slow_wait_s: float = 0.5
    seed: int = 0

    def requests(self) -> Iterator[PlannedStream]:
        """Without end; the same for the same seed."""
        chance = random.Random(self.seed)
        while True:
            yield PlannedStream(
                self.prompt_lengths.drawn(chance),
                self.output_lengths.drawn(chance),
                chance.random() < self.slow_share,
                chance.getrandbits(63),
            )

    def arrivals(self) -> Iterator[float]:
        """Seconds from the start, of a Poisson process."""
        assert self.rate is not None
        chance = random.Random(self.seed + 1)
        at = 0.0
        while True:
            at += chance.expovariate(self.rate)
            yield at
