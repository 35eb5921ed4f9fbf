"""The parts of a server that know something worth measuring."""

from typing import NamedTuple

from charlm_server.health_monitor import HealthMonitor
from charlm_server.models.hot_swap import HotSwap
from charlm_server.models.registry import Models
from charlm_server.state_store import StateStore


class Sources(NamedTuple):
    models: Models
    hot_swap: HotSwap
    states: StateStore
    monitor: HealthMonitor
