"""Makes an engine stuck, for as long as a test likes."""

import threading
from collections.abc import Callable
from typing import Any


class Gate:
    """Stands in an engine's way until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def before(self, tick: Callable[..., Any]) -> Callable[..., Any]:
        """The same tick, behind this gate."""

        def gated(**options: Any) -> Any:
            self.reached.set()
            self.opened.wait(60)
            return tick(**options)

        return gated
