"""Counters of all calls since the start. Written on the event loop, read by any thread."""

from collections import Counter, defaultdict

from charlm_server.calls.amounts import ModelCounters
from charlm_server.calls.call import Call
from charlm_server.calls.histogram import Histogram


class CallCounters:
    """By method, by model; both sets are bounded, so callers cannot make it grow."""

    def __init__(self) -> None:
        self.num_open: Counter[str] = Counter()  # by method
        self.num_ended: Counter[tuple[str, str]] = Counter()  # by method and status code
        self.num_refused: Counter[tuple[str, str]] = Counter()  # by method and reason
        self.durations: defaultdict[str, Histogram] = defaultdict(Histogram)  # by method
        # By resource name.
        self.models: defaultdict[str, ModelCounters] = defaultdict(ModelCounters)

    def began(self, call: Call) -> None:
        call.counters_of = self.models.__getitem__
        self.num_open[call.method] += 1

    def ended(self, call: Call) -> None:
        self.num_ended[call.method, call.code] += 1
        self.durations[call.method].add(call.duration_s)
        if call.reason:
            self.num_refused[call.method, call.reason] += 1
        if call.model:
            self.models[call.model].amounts.received_characters += call.amounts.received_characters
        self.num_open[call.method] -= 1  # last, so that its other counts are visible first
