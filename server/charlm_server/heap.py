"""What the garbage collector is spared."""

import gc


def spare_collector() -> None:
    """Let the collector walk only over what is made from here on; for once, before models are.

    Most of a server's objects are torch's and live as long as it does: a walk over them takes 100
    to 200 ms, in which every call and the engine wait. Models come and go, and are not spared.
    """
    gc.collect()
    gc.freeze()
