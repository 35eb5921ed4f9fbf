"""Envoy's configuration, read by Envoy. That it works: `tests/e2e/test_replicas.py`."""

import subprocess
from typing import Any

import pytest
import yaml

from charlm_client.wire.channel import IDEMPOTENT
from tests.e2e.envoy import ENVOY, SHIPPED

CONFIG = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
(CLUSTER,) = CONFIG["static_resources"]["clusters"]


def routes() -> dict[str, dict[str, Any]]:
    (listener,) = CONFIG["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (host,) = manager["route_config"]["virtual_hosts"]
    return {route["match"]["prefix"]: route["route"] for route in host["routes"]}


@pytest.mark.slow
@pytest.mark.skipif(not ENVOY.exists(), reason="Envoy is not installed: make unit")
def test_envoy_accepts_its_configuration() -> None:
    command = [ENVOY, "--mode", "validate", "--config-path", SHIPPED]
    checked = subprocess.run(command, capture_output=True, text=True)

    assert checked.returncode == 0, checked.stderr
    assert "deprecated" not in checked.stderr.lower()


def test_the_proxy_retries_the_same_errors_as_the_client() -> None:
    again = {
        prefix.strip("/") for prefix, route in routes().items()
        if "unavailable" in route["retry_policy"]["retry_on"].split(",")
    }  # fmt: skip

    assert again == {each["service"] for each in IDEMPOTENT if "method" not in each}
    assert list(routes())[-1] == "/"


def test_the_proxy_has_no_timeout_for_streams() -> None:
    assert {route["timeout"] for route in routes().values()} == {"0s"}


def test_only_healthy_servers_get_calls() -> None:
    (check,) = CLUSTER["health_checks"]

    assert check["grpc_health_check"] == {"service_name": "charlm.v1.GenerationService"}
    assert CLUSTER["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}
    assert CLUSTER["lb_policy"] == "ROUND_ROBIN"
