"""Ctrl-C ends training cleanly: the current step is finished, then the model is saved."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Yields a function: has a signal asked the run to stop? A second signal stops at once.

    Python delivers signals to its main thread only; in other threads it returns False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in STOPPING}

    def receive(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in STOPPING:
        signal.signal(number, receive)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
