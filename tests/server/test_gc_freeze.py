"""The collector skips frozen objects, and frees later ones, cycles included."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from charlm_server.app import freeze_collector


class Circle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_frozen_objects_are_not_scanned_again() -> None:
    kept = Circle()

    freeze_collector()

    assert gc.get_freeze_count() > 1000
    assert not any(each is kept for each in gc.get_objects())


def test_objects_made_later_are_freed() -> None:
    freeze_collector()
    circle = Circle()
    seen = weakref.ref(circle)

    del circle
    gc.collect()

    assert seen() is None
