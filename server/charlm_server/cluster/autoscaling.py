"""Settings of autoscaling on a Ray cluster."""

from dataclasses import dataclass

from charlm_server.errors.base import ServeError


@dataclass(frozen=True, kw_only=True, slots=True)
class Autoscaling:
    """The number of replicas, and the resources and calls of each.

    Ray adds replicas while each has more than `target_calls` open calls, and removes some after a
    time with fewer. At most `max_calls` wait or run in one replica.
    """

    min_replicas: int = 1
    max_replicas: int = 1
    target_calls: float = 32.0
    max_calls: int = 320
    cpus: float = 1.0
    upscale_after_s: float = 5.0
    downscale_after_s: float = 300.0

    def __post_init__(self) -> None:
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ServeError(
                f"--replicas is {self.min_replicas}:{self.max_replicas}; in N:M, N must be at "
                "least 1 and M at least N."
            )
