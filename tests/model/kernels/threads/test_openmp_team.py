"""torch's own threads compute each shard once; without them the pool's threads do."""

import sys
import threading

import pytest

from charlm_model.kernels.threads import openmp_team
from charlm_model.kernels.threads.openmp_team import run_in_team
from charlm_model.kernels.threads.row_sharding import shard_rows


@pytest.fixture(params=["torch's threads", "no such threads"], autouse=True)
def openmp(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no such threads":
        monkeypatch.setattr(openmp_team, "_openmp", lambda: None)


@pytest.mark.parametrize("num_rows", [1, 2, 9, 64, 65])
def test_every_row_is_in_one_shard(num_rows: int) -> None:
    seen: list[int] = []

    def work(rows: slice) -> None:
        seen.extend(range(num_rows)[rows])

    shard_rows(work, num_rows, sys.maxsize, call=run_in_team)

    assert sorted(seen) == list(range(num_rows))


def test_shards_are_computed_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=60)

    run_in_team(lambda _rows: void(both.wait()), [slice(0, 1), slice(1, 2)], 2)

    assert not both.broken


def test_more_shards_than_threads_are_all_computed() -> None:
    shards = [slice(at, at + 1) for at in range(200)]
    seen: list[int] = []

    run_in_team(lambda rows: seen.append(rows.start), shards, 3)

    assert sorted(seen) == list(range(200))


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_a_thread_reaches_the_caller(failing: int) -> None:
    def work(rows: slice) -> None:
        if rows.start == failing:
            raise IndexError(rows.start)

    with pytest.raises(IndexError, match=str(failing)):
        run_in_team(work, [slice(0, 1), slice(1, 2)], 2)


def void(_: object) -> None: ...
