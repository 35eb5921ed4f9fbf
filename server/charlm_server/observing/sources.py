"""The parts of a server that know something worth measuring."""

from typing import NamedTuple

from charlm_server.exchange import Exchange
from charlm_server.loaded import Models
from charlm_server.monitor import Monitor
from charlm_server.states import States


class Sources(NamedTuple):
    models: Models
    exchange: Exchange
    states: States
    monitor: Monitor
