"""Starts and stops the metrics, traces and logs of a server."""

import logging
from typing import TYPE_CHECKING

from charlm_server.calls.call import Observer
from charlm_server.config.settings import ServeConfig
from charlm_server.errors.base import ServeError
from charlm_server.observing import call_log
from charlm_server.observing.call_counters import CallCounters
from charlm_server.observing.sources import Sources
from charlm_server.rpc.call_tracking import Calls

if TYPE_CHECKING:
    from charlm_server.observing.metrics import MetricsServer
    from charlm_server.observing.tracing import Tracing

LAST_SPANS_S = 2.0  # for a collector that may not respond


class Telemetry:
    """Metrics, traces and logs of one server; those that are not enabled cost nothing."""

    def __init__(self, config: ServeConfig) -> None:
        """Raises ServeError."""
        self._config = config
        self._tracing = _tracing_of(config)
        self._counters = None if config.metrics_port is None else CallCounters()
        self._metrics: MetricsServer | None = None
        log = call_log.CallLog() if call_log.logger.isEnabledFor(logging.INFO) else None
        observers: tuple[Observer | None, ...] = (self._tracing, self._counters, log)
        self.calls = Calls(each for each in observers if each is not None)

    @property
    def metrics_address(self) -> str | None:
        """Where metrics are served; None if they are not."""
        return None if self._metrics is None else self._metrics.address

    def start(self, sources: Sources) -> None:
        """Raises ServeError if metrics cannot be served where they should be."""
        if self._config.metrics_port is not None and self._counters is not None:
            from charlm_server.observing.metrics import MetricsServer

            self._metrics = MetricsServer(
                self._config.metrics_host, self._config.metrics_port, self._counters, sources
            )

    def stop(self) -> None:
        """Blocks for a moment."""
        if self._metrics is not None:
            self._metrics.close()
        if self._tracing is not None:
            self._tracing.close(LAST_SPANS_S)


def _tracing_of(config: ServeConfig) -> "Tracing | None":
    if config.otlp_endpoint is None:
        return None
    try:
        from charlm_server.observing.tracing import tracing_to
    except ImportError:
        raise ServeError(
            "--otlp-endpoint needs OpenTelemetry, which is not installed. "
            "Run: pip install 'charlm[tracing]'"
        ) from None
    return tracing_to(config.otlp_endpoint)
