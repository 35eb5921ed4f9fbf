"""A call ends early enough before its deadline for its answer to arrive."""

from types import SimpleNamespace
from typing import Any

import pytest

from charlm_server.engine.job import FOREVER
from charlm_server.rpc.call_helpers import deadline_of

MODEL: Any = SimpleNamespace(scheduler=SimpleNamespace(now=lambda: 1000.0))


def margin_of(remaining_s: float) -> float:
    context = SimpleNamespace(time_remaining=lambda: remaining_s)
    return 1000.0 + remaining_s - deadline_of(context, MODEL)


@pytest.mark.parametrize(
    ("remaining_s", "margin_s"),
    [(0.1, 0.02), (1.0, 0.05), (15.0, 0.3), (30.0, 0.6), (3600.0, 1.0)],
)
def test_the_margin_grows_with_what_may_be_made_by_then(
    remaining_s: float, margin_s: float
) -> None:
    assert margin_of(remaining_s) == pytest.approx(margin_s)


def test_without_a_deadline_there_is_time() -> None:
    assert deadline_of(SimpleNamespace(time_remaining=lambda: None), MODEL) == FOREVER
