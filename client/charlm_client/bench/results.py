"""Results of a load test: rates, latencies and errors."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import ceil
from typing import Any

from charlm_client.bench.load_generator import StreamRecord
from charlm_client.bench.workload import Workload


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of a latency, in seconds; 0 without measurements."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, waits: Iterable[float]) -> "Percentiles":
        ordered = sorted(waits)
        return cls(*(percentile(ordered, share) for share in (0.5, 0.95, 0.99)))


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadResults:
    """Results after the warm-up. Slow readers count only in `errors` and `num_streams`."""

    seconds: float
    characters_per_s: float
    streams_per_s: float  # that ended
    num_streams: int  # that began
    num_ended: int
    first_character_s: Percentiles
    between_chunks_s: Percentiles
    errors: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def load_results(records: Sequence[StreamRecord], workload: Workload) -> LoadResults:
    begin, end = workload.warm_up_s, workload.duration_s
    counted = [each for each in records if not each.is_slow]
    chunks = [(at, num) for each in counted for at, num in each.chunks if begin <= at < end]
    seconds = max(end - begin, 1e-9)
    recent = [each for each in records if each.started_at >= begin]
    answered = [each for each in counted if each.started_at >= begin and each.chunks]
    ended = [each for each in counted if each.has_ended and begin <= each.chunks[-1][0] < end]
    return LoadResults(
        seconds=seconds,
        characters_per_s=sum(num for _, num in chunks) / seconds,
        streams_per_s=len(ended) / seconds,
        num_streams=len(recent),
        num_ended=len(ended),
        first_character_s=Percentiles.of(each.chunks[0][0] - each.started_at for each in answered),
        between_chunks_s=Percentiles.of(
            later - earlier
            for each in counted
            for (earlier, _), (later, _) in pairwise(each.chunks)
            if begin <= later < end
        ),
        errors=dict(Counter(each.error for each in recent if each.error)),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values does not exceed; 0 for none."""
    if not ordered:
        return 0.0
    return ordered[max(0, ceil(len(ordered) * share) - 1)]


def rates(
    records: Sequence[StreamRecord], duration_s: float, num_parts: int = 50
) -> list[tuple[float, float]]:
    """(seconds, characters per second) over equal parts of the duration."""
    width = duration_s / num_parts
    counts = [0] * num_parts
    for each in records:
        for at, num in each.chunks:
            if at < duration_s:
                counts[int(at / width)] += num
    return [((part + 0.5) * width, count / width) for part, count in enumerate(counts)]
