"""Captures repeated launches as CUDA graphs, which one call replays."""

import threading
from collections.abc import Callable, Hashable

import torch

_capturing = threading.Lock()


class CudaGraphs:
    """Graphs by name; a name must always mean the same launches on the same memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}

    def run(self, name: Hashable, enqueue: Callable[[], None]) -> None:
        """Run the launches of `enqueue`: directly the first time, as a graph from then on."""
        if name in self._graphs:
            self._graphs[name].replay()
            return
        enqueue()
        if self._device.type == "cuda":
            self._graphs[name] = self._captured(enqueue)

    def _captured(self, enqueue: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Capture without executing; `enqueue` may not allocate. Other threads are not blocked."""
        graph = torch.cuda.CUDAGraph()
        with _capturing, torch.cuda.stream(torch.cuda.Stream(self._device)):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                enqueue()
            finally:
                graph.capture_end()
        return graph
