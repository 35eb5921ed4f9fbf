"""The parts of a server that know something worth measuring."""

from typing import NamedTuple

from charlm_server.health_monitor import Monitor
from charlm_server.models.hot_swap import Exchange
from charlm_server.models.registry import Models
from charlm_server.state_store import States


class Sources(NamedTuple):
    models: Models
    exchange: Exchange
    states: States
    monitor: Monitor
