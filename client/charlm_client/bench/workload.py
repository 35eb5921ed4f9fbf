"""A workload: number of streams, arrival times, and lengths of texts."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from charlm_client.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Lengths:
    """A range of lengths, both ends included; drawn uniformly."""

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
    """The parameters of one stream."""

    prompt_length: int
    output_length: int
    is_slow: bool  # waits between reads
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """A closed loop keeps `num_streams` open; an open loop starts `rate` streams per second.

    Times are in seconds. Streams that end within `warm_up_s` are not measured.
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
        """An endless sequence, determined by the seed."""
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
