"""The manifests: built by kustomize, checked against the schemas of the API, and for sense."""

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from charlm_client.cli.main import app
from charlm_client.cli.plugins import load
from charlm_server.config.settings import ServeConfig

MANIFESTS = Path(__file__).parents[2] / "deploy" / "kubernetes"
BIN = Path(sys.prefix) / "bin"
OVERLAYS = ["base", "secure"]
PROBES = ["startupProbe", "livenessProbe", "readinessProbe"]

pytestmark = pytest.mark.skipif(
    not (BIN / "kubectl").exists(), reason="kubectl is not installed: make unit"
)


@cache
def built(overlay: str) -> str:
    """What `kubectl apply -k` would send."""
    command = [BIN / "kubectl", "kustomize", MANIFESTS / overlay]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def objects(overlay: str) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all(built(overlay))}


def pod(overlay: str) -> dict[str, Any]:
    spec: dict[str, Any] = objects(overlay)["Deployment"]["spec"]["template"]["spec"]
    return spec


def container(overlay: str) -> dict[str, Any]:
    (only,) = pod(overlay)["containers"]
    assert isinstance(only, dict)
    return only


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_schemas_of_the_api_take_every_object(overlay: str, tmp_path: Path) -> None:
    manifest = tmp_path / "all.yaml"
    manifest.write_text(built(overlay))

    command = [sys.executable, "-m", "kubernetes_validate", "--strict", "--quiet", manifest]
    checked = subprocess.run(command, capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_these_objects_are_shipped() -> None:
    assert set(objects("base")) == set(objects("secure")) == {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy",
        "PersistentVolumeClaim", "PodDisruptionBudget", "Service",
    }  # fmt: skip


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_few_rights(overlay: str) -> None:
    security = container(overlay)["securityContext"]

    assert pod(overlay)["securityContext"]["runAsNonRoot"] is True
    assert pod(overlay)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(overlay)["automountServiceAccountToken"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_selects_the_same_pods(overlay: str) -> None:
    parts = objects(overlay)
    labels = parts["Deployment"]["spec"]["template"]["metadata"]["labels"]

    assert parts["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert parts["Service"]["spec"]["selector"] == labels
    assert parts["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert parts["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert parts["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "charlm"


def test_the_service_is_headless_so_that_clients_see_every_pod() -> None:
    assert objects("base")["Service"]["spec"]["clusterIP"] == "None"


def test_metrics_are_where_a_prometheus_looks_for_them() -> None:
    about = objects("base")["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    ports = {port["name"]: port["containerPort"] for port in container("base")["ports"]}

    assert settings("base")["CHARLM_METRICS_PORT"] == about["prometheus.io/port"]
    assert str(ports["metrics"]) == about["prometheus.io/port"]


def test_probes_ask_the_health_service_and_readiness_asks_for_generation() -> None:
    probes = {name: container("base")[name]["grpc"] for name in PROBES}

    assert {probe["port"] for probe in probes.values()} == {50051}
    assert probes["livenessProbe"].get("service", "") == ""
    assert probes["readinessProbe"]["service"] == "charlm.v1.GenerationService"


def test_with_tls_probes_are_commands_that_trust_the_same_authority() -> None:
    commands = [container("secure")[name]["exec"]["command"] for name in PROBES]

    assert all(command[:2] == ["charlm", "health"] for command in commands)
    assert settings("secure")["CHARLM_TLS_CA"] == "/tls/ca.crt"
    assert not [name for name in PROBES if "grpc" in container("secure")[name]]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_to_drain(overlay: str) -> None:
    leaving_s = container(overlay)["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace_s = float(settings(overlay)["CHARLM_DRAIN_GRACE"])

    assert grace_s == ServeConfig(checkpoints={}).drain_grace_s
    assert pod(overlay)["terminationGracePeriodSeconds"] >= leaving_s + grace_s + 10


def settings(overlay: str) -> dict[str, str]:
    data: dict[str, str] = objects(overlay)["ConfigMap"]["data"]
    return data


def variables(command: click.Command) -> set[str]:
    """The environment variables that a command and its own commands read."""
    own = {parameter.envvar for parameter in command.params if isinstance(parameter.envvar, str)}
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    return own.union(*map(variables, inner))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_setting_is_a_flag_of_a_command(overlay: str) -> None:
    known = variables(typer.main.get_command(app))
    known |= variables(typer.main.get_command(load("serve")))

    assert set(settings(overlay)) <= known


def test_secrets_are_mounted_where_the_settings_look_for_them() -> None:
    mounts = [mount["mountPath"] for mount in container("secure")["volumeMounts"]]
    paths = [Path(value) for value in settings("secure").values() if value.startswith("/")]

    assert len(paths) == 4
    assert all(str(path.parent) in mounts for path in paths)
    assert settings("secure")["CHARLM_ALLOW_INSECURE"] == "false"
