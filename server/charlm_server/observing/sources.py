"""The parts of a server that the metrics are read from."""

from collections.abc import Callable
from typing import NamedTuple

from charlm_server.health_monitor import HealthMonitor
from charlm_server.models.registry import Models
from charlm_server.state_store import StateStore


class Sources(NamedTuple):
    models: Models
    num_retiring: Callable[[], int]  # replaced or unloaded models with open calls
    states: StateStore
    monitor: HealthMonitor
