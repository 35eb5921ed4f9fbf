"""Prometheus metrics, on a port of their own: read from counters that are there anyway.

Nothing is computed before somebody asks; then on a thread of its own, so that a loop or an engine
that is stuck can still be seen. docs/observability.md lists every metric.
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
    """What was asked and answered."""

    def __init__(self, counters: CallCounters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        yield from self._calls()
        yield from self._texts()

    def _calls(self) -> Iterator[Metric]:
        counters = self._counters
        ended = CounterMetricFamily(
            "charlm_calls", "Calls that ended, by status code.", labels=["method", "code"]
        )
        for labels, num in counters.num_ended.copy().items():
            ended.add_metric(labels, num)
        refused = CounterMetricFamily(
            "charlm_refusals", "Calls that ended with a reason.", labels=["method", "reason"]
        )
        for labels, num in counters.num_refused.copy().items():
            refused.add_metric(labels, num)
        open_calls = GaugeMetricFamily("charlm_open_calls", "Calls under way.", labels=["method"])
        for method, num in counters.num_open.copy().items():
            open_calls.add_metric([method], num)
        durations = _histograms("charlm_call_duration_seconds", "From beginning to end.", "method")
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
            "charlm_first_character_seconds", "From a call to its first chunk of text.", "model"
        )
        between = _histograms(
            "charlm_between_chunks_seconds", "From one chunk of a stream to its next.", "model"
        )
        for model, counters in by_model.items():
            _add(first, model, counters.first_character)
            _add(between, model, counters.between_chunks)
        yield first
        yield between


AMOUNTS = (
    ("received_characters", "received_characters", "Characters of text that calls brought."),
    ("prompt_tokens", "prompt_tokens", "Tokens of prompts that were continued."),
    ("generated_characters", "generated_characters", "Characters written to callers."),
    ("generated_tokens", "generated_tokens", "Tokens written to callers."),
    ("scored_characters", "scored_characters", "Characters whose probability was told."),
    ("scored_tokens", "scored_tokens", "Tokens whose probability was told."),
    ("coded_bytes", "coded_bytes", "Bytes of text compressed or restored."),
)


class ServerCollector(Collector):
    """What the engines do, what is kept, what is served."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._build = InfoMetricFamily(
            "charlm_build",
            "What runs here.",
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
        yield GaugeMetricFamily("charlm_states", "States kept for callers.", states.num)
        yield GaugeMetricFamily("charlm_states_bytes", "Memory of those.", states.num_bytes)

    def _served(self, models: list[LoadedModel]) -> Iterator[Metric]:
        yield GaugeMetricFamily("charlm_models", "Models served.", len(models))
        yield GaugeMetricFamily(
            "charlm_models_retiring",
            "Replaced or unloaded models that have calls to finish.",
            self._sources.num_retiring(),
        )
        info = InfoMetricFamily("charlm_model", "What each model is.", labels=["model"])
        for model in models:
            told = {
                "digest": model.checkpoint.digest,
                "family": model.checkpoint.config.family,
                "numerics": model.numerics,
            }
            info.add_metric([model.name], told)
        yield info

    def _engines(self, models: list[LoadedModel]) -> Iterator[Metric]:
        well = _gauges("charlm_engine_serving", "1; or 0 while its engine does no work.")
        ticks = SummaryMetricFamily(
            "charlm_engine_tick_seconds", "Rounds of work of an engine.", labels=["model"]
        )
        silent = _gauges(
            "charlm_engine_silent_seconds", "Since there was work and none of it was done."
        )
        steps = _counters("charlm_engine_steps", "Decode steps of the whole batch.")
        step = _gauges("charlm_engine_step_seconds", "Processor time of a step lately.")
        for model in models:
            progress, label = model.scheduler.progress, [model.name]
            well.add_metric(label, self._sources.monitor.is_healthy(model))
            ticks.add_metric(label, progress.num_ticks, progress.ticks_s)
            silent.add_metric(label, progress.silent_s)
            steps.add_metric(label, progress.num_steps)
            step.add_metric(label, progress.seconds_per_step)
        return iter((well, ticks, silent, steps, step))


def _queues(models: Iterable[LoadedModel]) -> Iterator[Metric]:
    requests = _gauges("charlm_queue_requests", "Requests that wait for a place.")
    tokens = _gauges("charlm_queue_tokens", "Tokens of work that they bring, at most.")
    waits = _histograms("charlm_queue_wait_seconds", "From admission to a place.", "model")
    for model in models:
        load, label = model.scheduler.load, [model.name]
        requests.add_metric(label, load.num_waiting)
        tokens.add_metric(label, load.num_waiting_tokens)
        _add(waits, model.name, model.scheduler.queue_waits)
    return iter((requests, tokens, waits))


def _batches(models: Iterable[LoadedModel]) -> Iterator[Metric]:
    running = _gauges("charlm_batch_rows", "Sequences that are decoded together.")
    capacity = _gauges("charlm_batch_capacity_rows", "The most that can be.")
    parked = _gauges("charlm_parked_rows", "Sequences that wait for slow readers.")
    sampled = _counters("charlm_sampled_tokens", "Tokens drawn, past a sequence's end included.")
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
    """Prometheus counts all that a bound holds, not only what is above the bound before."""
    counts = accumulate(histogram.counts)
    bounds = [*map(str, histogram.bounds), "+Inf"]
    family.add_metric([label], list(zip(bounds, counts, strict=True)), histogram.total)
