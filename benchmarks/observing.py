"""What it costs to be observed: the same load, in turns, on servers that are and one that is not.

    python benchmarks/observing.py [SECONDS]

Prints characters a second, and microseconds of the server's processor time a character, which says
the same on a busy machine. Ratios are to the server without observers; all are medians of turns.
"""

import asyncio
import multiprocessing
import os
import socket
import statistics
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from served import NAME, served

from charlm_client.bench.load_generator import LoadGenerator
from charlm_client.bench.results import load_results
from charlm_client.bench.workload import Workload
from charlm_client.client import Client
from charlm_model.config import ModelConfig

CHARACTERS = "".join(map(chr, range(32, 96)))
LSTM = ModelConfig(
    family="lstm", vocab_size=len(CHARACTERS) + 1, embedding_size=64, hidden_size=256, num_layers=2
)
NAMES = ("nobody", "metrics", "metrics and logs")
NUM_TURNS = 4
SCRAPE_EVERY_S = 1.0
LOADS = {"64 streams": 64, "1 stream": 1}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class Observed:
    """One of the servers."""

    address: str
    process_id: int
    metrics_port: int | None

    @property
    def processor_s(self) -> float:
        """Its processor time so far."""
        fields = Path(f"/proc/{self.process_id}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def put_load(self, num_streams: int, seconds: float) -> tuple[float, float]:
        """Characters a second, and microseconds a character; scraped more often than usual."""
        workload = Workload(num_streams=num_streams, duration_s=seconds, warm_up_s=0.2 * seconds)
        before = self.processor_s
        async with Client(self.address) as client:
            scraping = asyncio.create_task(keep_scraping(self.metrics_port))
            records = await LoadGenerator(client, NAME, workload).run()
            scraping.cancel()
        num_characters = sum(num for record in records for _, num in record.chunks)
        used_us = 1e6 * (self.processor_s - before)
        return load_results(records, workload).characters_per_s, used_us / num_characters


async def keep_scraping(port: int | None) -> None:
    while port is not None:
        await asyncio.to_thread(scrape, port)
        await asyncio.sleep(SCRAPE_EVERY_S)


def scrape(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        answer.read()


@contextmanager
def observed(name: str) -> Iterator[Observed]:
    known = set(multiprocessing.active_children())
    port = free_port() if "metrics" in name else None
    with served(LSTM, CHARACTERS, metrics_port=port, logs="logs" in name) as address:
        [process] = set(multiprocessing.active_children()) - known
        assert process.pid is not None
        yield Observed(address, process.pid, port)


def main(seconds: float = 2.5) -> None:
    figures: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(observed(name)) for name in NAMES}
        for turn in range(NUM_TURNS):
            for load, num_streams in LOADS.items():
                for name in NAMES if turn % 2 else reversed(NAMES):
                    measured = asyncio.run(servers[name].put_load(num_streams, seconds))
                    figures.setdefault((load, name), []).append(measured)
    for load in LOADS:
        for name in NAMES:
            rate, cost = (
                statistics.median(each) for each in zip(*figures[load, name], strict=True)
            )
            pairs = list(zip(figures[load, name], figures[load, NAMES[0]], strict=True))
            rates = statistics.median(ours[0] / theirs[0] for ours, theirs in pairs)
            costs = statistics.median(ours[1] / theirs[1] for ours, theirs in pairs)
            print(
                f"{load:>10}, {name:<16} {rate:9,.0f} characters/s (ratio {rates:.3f}), "
                f"{cost:.2f} us a character (ratio {costs:.3f})"
            )


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
