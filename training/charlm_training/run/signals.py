"""Ctrl-C ends training cleanly: the step under way is finished, then evaluated and saved."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Yields a question: was the run asked to stop? A second signal stops at once.

    Python hands signals to its first thread alone: elsewhere the answer stays no.
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
