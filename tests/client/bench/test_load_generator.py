"""A load is what was asked for, and its results are those of what came."""

import random
from itertools import islice, pairwise

import grpc
import pytest
from fake_server import Failure, Script
from hypothesis import given
from hypothesis import strategies as st

from charlm_client import CharlmError, Client, InvalidRequest
from charlm_client.bench.load_generator import LoadGenerator, StreamRecord
from charlm_client.bench.plot import svg
from charlm_client.bench.results import load_results, percentile, rates
from charlm_client.bench.workload import Lengths, Workload


def test_lengths_are_a_number_or_a_range() -> None:
    assert Lengths.parse("20", "n") == Lengths(20, 20)
    assert Lengths.parse("5-90", "n") == Lengths(5, 90)


@pytest.mark.parametrize("text", ["", "x", "0", "9-3", "-4", "1-2-3", "0-5"])
def test_other_lengths_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=f"--prompt-length is {text!r}; it must be"):
        Lengths.parse(text, "--prompt-length")


@given(st.integers(1, 50), st.integers(0, 50))
def test_a_drawn_length_is_in_its_range(least: int, more: int) -> None:
    lengths = Lengths(least, least + more)

    assert least <= lengths.drawn(random.Random(0)) <= least + more


def test_the_same_seed_is_the_same_load() -> None:
    workload = Workload(rate=5.0, output_lengths=Lengths(1, 99), slow_share=0.5, seed=3)

    first, again = ([*islice(workload.requests(), 20)] for _ in range(2))
    assert first == again
    assert {each.is_slow for each in first} == {True, False}
    assert [*islice(workload.arrivals(), 9)] == [*islice(workload.arrivals(), 9)]


def test_arrivals_come_at_the_rate() -> None:
    arrivals = [*islice(Workload(rate=50.0).arrivals(), 5000)]

    assert all(later >= earlier for earlier, later in pairwise(arrivals))
    assert 5000 / arrivals[-1] == pytest.approx(50, rel=0.1)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_not_exceeded_by_its_share(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)

    assert found in ordered
    assert sum(each <= found for each in ordered) >= share * len(ordered) - 1e-9


def test_results_are_of_the_time_after_warming_up() -> None:
    records = [
        StreamRecord(0.5, [(0.9, 5), (1.5, 7), (2.0, 8)], has_ended=True),
        StreamRecord(1.2, [(1.3, 1)]),
        StreamRecord(1.4, [(1.5, 100)], is_slow=True, has_ended=True),
        StreamRecord(1.6, error="QueueFull"),
        StreamRecord(0.2, error="Unavailable"),
    ]

    results = load_results(records, Workload(duration_s=3.0, warm_up_s=1.0))

    assert results.characters_per_s == (7 + 8 + 1) / 2
    assert (results.num_streams, results.num_ended) == (3, 1)
    assert results.first_character_s.p50 == pytest.approx(0.1)
    assert results.between_chunks_s.p99 == pytest.approx(0.6)
    assert results.errors == {"QueueFull": 1}


def test_results_of_no_streams_are_zero() -> None:
    results = load_results([], Workload())

    assert results.characters_per_s == results.first_character_s.p99 == 0


def test_a_plot_shows_every_part_of_the_time() -> None:
    points = rates([StreamRecord(0, [(0.1, 10), (0.9, 30)])], 1.0, num_parts=2)
    picture = svg(points, "a < b")

    assert points == [(0.25, 20), (0.75, 60)]
    assert "a &lt; b" in picture
    assert "60 characters/s" in picture


@pytest.mark.slow
@pytest.mark.parametrize("rate", [None, 200.0])
async def test_streams_are_recorded_from_start_to_end(address: str, rate: float | None) -> None:
    lengths = {"prompt_lengths": Lengths(1, 1), "output_lengths": Lengths(1, 5)}
    workload = Workload(num_streams=2, rate=rate, duration_s=0.4, **lengths)

    async with Client(address, timeout_s=5) as client:
        records = await LoadGenerator(client, "alphabet", workload).run()

    ended = [each for each in records if each.has_ended]
    assert len(ended) > 2
    assert not any(each.error for each in records)
    assert all(each.started_at <= each.chunks[0][0] for each in ended)


async def test_an_error_before_the_load_is_raised(address: str, script: Script) -> None:
    script.failures.append(Failure(grpc.StatusCode.NOT_FOUND, "no such model"))

    async with Client(address, timeout_s=5) as client:
        generator = LoadGenerator(client, "alphabet", Workload(duration_s=0.1))
        with pytest.raises(CharlmError, match="no such model"):
            await generator.run()


@pytest.mark.parametrize("rate", [None, 200.0])
async def test_a_refused_request_ends_the_load(address: str, rate: float | None) -> None:
    """Every stream of the workload would be refused too."""
    too_long = Lengths(2**33, 2**33)
    workload = Workload(num_streams=2, rate=rate, duration_s=30, output_lengths=too_long)

    async with Client(address, timeout_s=5) as client:
        with pytest.raises(InvalidRequest, match="max_new_tokens is 8589934592"):
            await LoadGenerator(client, "alphabet", workload).run()
