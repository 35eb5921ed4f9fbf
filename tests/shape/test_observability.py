"""Prometheus and Grafana beside the server: what can be known of them without an engine."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OBSERVABILITY = ROOT / "deploy" / "observability"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(
    (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
)["services"]
OBSERVERS = ("prometheus", "grafana")


def read(*path: str) -> Any:
    return yaml.safe_load(OBSERVABILITY.joinpath(*path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", OBSERVERS)
def test_the_image_of_an_observer_can_be_pinned(name: str) -> None:
    service = SERVICES[name]

    repository, tag = service["image"].removesuffix("}").split(":-")[1].split(":")
    assert service["image"].startswith(f"${{CHARLM_{name.upper()}_IMAGE:-")
    assert repository.endswith(name)
    assert tag not in {"", "latest"}


@pytest.mark.parametrize("name", OBSERVERS)
def test_what_an_observer_mounts_is_here_and_read_only(name: str) -> None:
    mounted = [volume for volume in SERVICES[name]["volumes"] if volume.startswith("./")]

    assert mounted
    for volume in mounted:
        source, _, mode = volume.split(":")
        assert (ROOT / source).exists()
        assert mode == "ro"


def test_prometheus_asks_the_server_where_it_answers() -> None:
    [job] = read("prometheus.yml")["scrape_configs"]
    [where] = job["dns_sd_configs"]

    assert where["names"] == ["server", "replica"]
    for name in where["names"]:
        environment = SERVICES[name]["environment"]
        assert environment["CHARLM_METRICS_PORT"] == str(where["port"])
        assert environment["CHARLM_METRICS_HOST"] == "0.0.0.0"
        assert not [port for port in SERVICES[name]["ports"] if str(where["port"]) in port]


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    [source] = read("grafana", "provisioning", "datasources", "prometheus.yml")["datasources"]
    [provider] = read("grafana", "provisioning", "dashboards", "charlm.yml")["providers"]
    dashboard = json.loads((OBSERVABILITY / "grafana/dashboards/charlm.json").read_text("utf-8"))

    assert source["url"] == "http://prometheus:9090"
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}
    paths = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert provider["options"]["path"] in paths
