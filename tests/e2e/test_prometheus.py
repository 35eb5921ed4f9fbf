"""A real Prometheus beside a server, with the configuration, alerts and panels that we ship."""

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from charlm_client import Client, ModelNotFound, QueueFull, Stopping
from tests.e2e.processes import STOP_TIMEOUT_S, Server, free_port, serving

SHIPPED = Path(__file__).parents[2] / "deploy" / "observability"
PROMETHEUS = shutil.which(os.environ.get("CHARLM_PROMETHEUS", "prometheus"))
INTERVAL, WINDOW = "200ms", "3s"  # in place of the shipped ones, which take minutes
FLAGS = ["--max-batch-size", "1", "--max-queued-requests", "1", "--metrics-port"]
NUM_CALLS = 8  # at once: one runs, one waits, the others are refused
TIMEOUT_S = 60.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        PROMETHEUS is None, reason="no Prometheus is installed; CHARLM_PROMETHEUS may name one"
    ),
]


class Prometheus:
    """One that runs, and what it answers."""

    def __init__(self, port: str) -> None:
        self._api = f"http://127.0.0.1:{port}/api/v1/"

    def ask(self, what: str, **query: str) -> Any:
        with urlopen(f"{self._api}{what}?{urlencode(query)}", timeout=TIMEOUT_S) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[float]:
        result = self.ask("query", query=expression)["result"]
        return [float(series["value"][1]) for series in result]

    def firing(self) -> set[str]:
        alerts = self.ask("alerts")["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}


def write_adapted(folder: Path, target: str) -> Path:
    """The shipped configuration with this server, and with shorter times."""
    alerts = yaml.safe_load((SHIPPED / "alerts.yml").read_text(encoding="utf-8"))
    for rule in alerts["groups"][0]["rules"]:
        rule["for"], rule["expr"] = "0s", rule["expr"].replace("[5m]", f"[{WINDOW}]")
    (folder / "alerts.yml").write_text(yaml.safe_dump(alerts), encoding="utf-8")
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL}
    config["rule_files"] = [str(folder / "alerts.yml")]
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": [target]}]
    del job["dns_sd_configs"]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@contextmanager
def scraping(folder: Path, target: str) -> Iterator[Prometheus]:
    port = free_port()
    assert PROMETHEUS is not None
    command = [PROMETHEUS, f"--config.file={write_adapted(folder, target)}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        ready = any("ready to receive web requests" in line for line in process.stderr)
        assert ready, "Prometheus ended before it was ready"
        try:
            yield Prometheus(port)
        finally:
            process.terminate()
            process.communicate(timeout=STOP_TIMEOUT_S)


@pytest.fixture(scope="module")
def watched(
    checkpoints: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Prometheus]]:
    metrics_port = free_port()
    with (
        serving(checkpoints / "fox", "0", *FLAGS, metrics_port) as server,
        scraping(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{metrics_port}") as prometheus,
    ):
        yield server, prometheus


def until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < ends_at


async def call(server: Server) -> None:
    """Streams that are answered, streams that are refused, and one of no model."""
    async with Client(server.address) as client:

        async def stream() -> None:
            stopping = Stopping(max_new_tokens=200)
            async with client.stream_generate("The ", model="fox", stopping=stopping) as chunks:
                async for _ in chunks:
                    pass

        answers = await asyncio.gather(
            *(stream() for _ in range(NUM_CALLS)), return_exceptions=True
        )
        assert {type(each) for each in answers} <= {type(None), QueueFull}
        with pytest.raises(ModelNotFound):
            await client.generate("The ", model="nobody")


def test_every_panel_of_the_dashboard_shows_something(watched: tuple[Server, Prometheus]) -> None:
    server, prometheus = watched
    dashboard = json.loads((SHIPPED / "grafana/dashboards/charlm.json").read_text("utf-8"))
    expressions = [each["expr"] for panel in dashboard["panels"] for each in panel["targets"]]
    empty = {
        each.replace("$__rate_interval", WINDOW).replace("$instance", ".*") for each in expressions
    }

    def all_shown() -> bool:
        asyncio.run(call(server))
        for expression in list(empty):
            if prometheus.values(expression):
                empty.remove(expression)
        return not empty

    assert len(expressions) > 20
    with suppress(AssertionError):
        until(all_shown)
    assert not empty


def test_alerts_fire_for_refusals_and_for_a_stopped_server(
    watched: tuple[Server, Prometheus],
) -> None:
    server, prometheus = watched
    until(lambda: prometheus.values("up") == [1.0] and not prometheus.firing())

    def refuses() -> bool:
        asyncio.run(call(server))
        return "CharlmRefusesForWantOfRoom" in prometheus.firing()

    until(refuses)
    rules = prometheus.ask("rules")["groups"][0]["rules"]
    assert {rule["health"] for rule in rules} == {"ok"}
    server.kill()  # so this test is the last
    until(lambda: "CharlmDown" in prometheus.firing())
