"""Prometheus metrics, on a port of their own: read from counters that the server keeps anyway.

Metrics are computed only for a scrape, on a thread of their own, so that a stuck event loop or
engine is still reported. docs/observability.md lists every metric.
"""

import platform
from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from charlm_model.gpu.placement import numerics_id
from charlm_server.calls.histogram import Histogram
from charlm_server.config.settings import address_of
from charlm_server.errors.base import ServeError
from charlm_server.models.registry import LoadedModel
from charlm_server.observing.call_counters import CallCounters
from charlm_server.observing.sources import Sources
from charlm_server.observing.version import VERSION


class MetricsServer:
    """GET /metrics, in plain text."""

    def __init__(self, host: str, port: int, counters: CallCounters, sources: Sources) -> None:
        """Raises ServeError if it cannot listen there."""
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        registry.register(CallCollector(counters))
        registry.register(ServerCollector(sources))
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ServeError(
                f"Metrics cannot be served on {address_of(host, port)}: {error.strerror}. "
                "Give another --metrics-port (0 finds a free one) or --metrics-host."
            ) from error
        self.address = address_of(host, self._server.server_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class CallCollector(Collector):
    """Calls, their durations, and the amounts of text in them."""

    def __init__(self, counters: CallCounters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        yield from self._calls()
        yield from self._texts()

    def _calls(self) -> Iterator[Metric]:
        counters = self._counters
        ended = CounterMetricFamily(
            "charlm_calls", "Calls that have ended, by status code.", labels=["method", "code"]
        )
        for labels, num in counters.num_ended.copy().items():
            ended.add_metric(labels, num)
        refused = CounterMetricFamily(
            "charlm_refusals",
            "Calls that ended in an error with a reason.",
            labels=["method", "reason"],
        )
        for labels, num in counters.num_refused.copy().items():
            refused.add_metric(labels, num)
        open_calls = GaugeMetricFamily("charlm_open_calls", "Open calls.", labels=["method"])
        for method, num in counters.num_open.copy().items():
            open_calls.add_metric([method], num)
        durations = _histograms("charlm_call_duration_seconds", "Duration of a call.", "method")
        for method, histogram in counters.durations.copy().items():
            _add(durations, method, histogram)
        return iter((ended, refused, open_calls, durations))

    def _texts(self) -> Iterator[Metric]:
        by_model = self._counters.models.copy()
        for field, name, words in AMOUNTS:
            family = CounterMetricFamily(f"charlm_{name}", words, labels=["model"])
            for model, counters in by_model.items():
                family.add_metric([model], getattr(counters.amounts, field))
            yield family
        first = _histograms(
            "charlm_first_character_seconds",
            "From the start of a call to its first chunk of text.",
            "model",
        )
        between = _histograms(
            "charlm_between_chunks_seconds", "Between two chunks of a stream.", "model"
        )
        for model, counters in by_model.items():
            _add(first, model, counters.first_character)
            _add(between, model, counters.between_chunks)
        yield first
        yield between


AMOUNTS = (
    ("received_characters", "received_characters", "Characters of text in requests."),
    ("prompt_tokens", "prompt_tokens", "Tokens of continued prompts."),
    ("generated_characters", "generated_characters", "Generated characters sent to callers."),
    ("generated_tokens", "generated_tokens", "Generated tokens sent to callers."),
    ("scored_characters", "scored_characters", "Scored characters."),
    ("scored_tokens", "scored_tokens", "Scored tokens."),
    ("coded_bytes", "coded_bytes", "Bytes of text compressed or decompressed."),
)


class ServerCollector(Collector):
    """Engines, queues, batches, kept states and loaded models."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._build = InfoMetricFamily(
            "charlm_build",
            "Version of the server and its arithmetic.",
            value={
                "version": VERSION,
                "python": platform.python_version(),
                "numerics": numerics_id(),
            },
        )

    def collect(self) -> Iterator[Metric]:
        yield self._build
        models = list(self._sources.models)
        yield from self._served(models)
        yield from _queues(models)
        yield from _batches(models)
        yield from self._engines(models)
        states = self._sources.states
        yield GaugeMetricFamily("charlm_states", "Kept states.", states.num)
        yield GaugeMetricFamily(
            "charlm_states_bytes", "Memory of the kept states.", states.num_bytes
        )

    def _served(self, models: list[LoadedModel]) -> Iterator[Metric]:
        yield GaugeMetricFamily("charlm_models", "Models served.", len(models))
        yield GaugeMetricFamily(
            "charlm_models_retiring",
            "Replaced or unloaded models with open calls.",
            self._sources.num_retiring(),
        )
        info = InfoMetricFamily(
            "charlm_model", "Checkpoint and arithmetic of each model.", labels=["model"]
        )
        for model in models:
            told = {
                "digest": model.checkpoint.digest,
                "family": model.checkpoint.config.family,
                "numerics": model.numerics,
            }
            info.add_metric([model.name], told)
        yield info

    def _engines(self, models: list[LoadedModel]) -> Iterator[Metric]:
        well = _gauges(
            "charlm_engine_serving", "1 if the engine works, 0 if it is stuck or has ended."
        )
        ticks = SummaryMetricFamily(
            "charlm_engine_tick_seconds", "Time in rounds of the engine.", labels=["model"]
        )
        silent = _gauges(
            "charlm_engine_silent_seconds",
            "Time since the engine last made progress, while it has work.",
        )
        steps = _counters("charlm_engine_steps", "Decode steps of the batch.")
        step = _gauges("charlm_engine_step_seconds", "Recent time of one decode step.")
        for model in models:
            progress, label = model.scheduler.progress, [model.name]
            well.add_metric(label, self._sources.monitor.is_healthy(model))
            ticks.add_metric(label, progress.num_ticks, progress.ticks_s)
            silent.add_metric(label, progress.silent_s)
            steps.add_metric(label, progress.num_steps)
            step.add_metric(label, progress.seconds_per_step)
        return iter((well, ticks, silent, steps, step))


def _queues(models: Iterable[LoadedModel]) -> Iterator[Metric]:
    requests = _gauges("charlm_queue_requests", "Queued requests.")
    tokens = _gauges("charlm_queue_tokens", "Most tokens of the queued requests.")
    waits = _histograms("charlm_queue_wait_seconds", "Time in the queue.", "model")
    for model in models:
        load, label = model.scheduler.load, [model.name]
        requests.add_metric(label, load.num_waiting)
        tokens.add_metric(label, load.num_waiting_tokens)
        _add(waits, model.name, model.scheduler.queue_waits)
    return iter((requests, tokens, waits))


def _batches(models: Iterable[LoadedModel]) -> Iterator[Metric]:
    running = _gauges("charlm_batch_rows", "Sequences in the batch.")
    capacity = _gauges("charlm_batch_capacity_rows", "Most sequences in the batch.")
    parked = _gauges("charlm_parked_rows", "Sequences paused for slow readers.")
    sampled = _counters(
        "charlm_sampled_tokens", "Sampled tokens, including those after the end of a sequence."
    )
    for model in models:
        load, label = model.scheduler.load, [model.name]
        running.add_metric(label, load.num_running)
        capacity.add_metric(label, load.capacity)
        parked.add_metric(label, load.num_parked)
        sampled.add_metric(label, load.num_sampled_tokens)
    return iter((running, capacity, parked, sampled))


def _gauges(name: str, words: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, labels=["model"])


def _counters(name: str, words: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, words, labels=["model"])


def _histograms(name: str, words: str, label: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, words, labels=[label])


def _add(family: HistogramMetricFamily, label: str, histogram: Histogram) -> None:
    """Prometheus buckets are cumulative: each counts all values up to its bound."""
    counts = accumulate(histogram.counts)
    bounds = [*map(str, histogram.bounds), "+Inf"]
    family.add_metric([label], list(zip(bounds, counts, strict=True)), histogram.total)
