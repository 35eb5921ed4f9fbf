"""What is done again and again, as CUDA graphs: one call replays it all."""

import threading
from collections.abc import Callable, Hashable

import torch

_capturing = threading.Lock()


class CudaGraphs:
    """Work by name; the same name must always mean the same work on the same memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}

    def run(self, name: Hashable, enqueue: Callable[[], None]) -> None:
        """Do what `enqueue` launches: by launching it the first time, by its graph later."""
        if name in self._graphs:
            self._graphs[name].replay()
            return
        enqueue()
        if self._device.type == "cuda":
            self._graphs[name] = self._captured(enqueue)

    def _captured(self, enqueue: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Nothing is executed and nothing may be allocated; other threads go on meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with _capturing, torch.cuda.stream(torch.cuda.Stream(self._device)):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                enqueue()
            finally:
                graph.capture_end()
        return graph
