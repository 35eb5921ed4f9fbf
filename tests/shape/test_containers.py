"""Checks the containers' files without a container engine; see `docs/decisions/0005`."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def stages() -> dict[str, str]:
    """The text of every build stage, by name, with that of the stages it is built on."""
    found: dict[str, str] = {}
    for part in re.split(r"(?m)^(?=FROM )", DOCKERFILE)[1:]:
        base, name = re.match(r"FROM (\S+) AS (\S+)", part).groups()  # type: ignore[union-attr]
        found[name] = found.get(base, "") + part
    return found


def test_the_services_are_these() -> None:
    profiles = {name: about["profiles"] for name, about in SERVICES.items() if "profiles" in about}
    assert SERVICES.keys() - profiles.keys() == {"server", "demo"}
    assert profiles == {
        "train": ["train"], "replica": ["envoy"], "envoy": ["envoy"],
        "prometheus": ["observe"], "grafana": ["observe"],
    }  # fmt: skip
    assert SERVICES["demo"]["depends_on"] == {"server": {"condition": "service_healthy"}}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_few_rights(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_models_are_mounted_read_only_and_the_port_on_loopback() -> None:
    server, envoy = SERVICES["server"], SERVICES["envoy"]

    assert [volume.rsplit(":", 1)[1] for volume in server["volumes"]] == ["ro"]
    assert all(port.startswith("127.0.0.1:") for port in server["ports"] + envoy["ports"])


@pytest.mark.parametrize("name", [name for name in SERVICES if "build" in SERVICES[name]])
def test_every_target_is_a_stage_on_a_base_that_can_be_pinned(name: str) -> None:
    build = SERVICES[name]["build"]

    assert build["target"] in stages()
    assert build["args"]["PYTHON_IMAGE"].startswith("${CHARLM_PYTHON_IMAGE:-")


def test_every_stage_is_on_the_base_that_an_argument_names() -> None:
    bases = {base for base in re.findall(r"(?m)^FROM (\S+)", DOCKERFILE) if base not in stages()}

    assert bases == {"${PYTHON_IMAGE}"}
    assert DOCKERFILE.index("ARG PYTHON_IMAGE=") < DOCKERFILE.index("FROM ")


def test_replicas_are_servers_that_only_the_proxy_publishes() -> None:
    server, replica = SERVICES["server"], SERVICES["replica"]
    changed = {key for key in server | replica if server.get(key) != replica.get(key)}

    assert changed == {"profiles", "ports", "deploy"}
    assert replica["ports"] == []


@pytest.mark.parametrize("stage", ["server", "client"])
def test_an_image_runs_as_an_unprivileged_user(stage: str) -> None:
    users = re.findall(r"(?m)^USER (\S+)", stages()[stage])

    assert users == ["10001:10001"]


@pytest.mark.parametrize("stage", ["server", "client"])
def test_an_image_begins_with_an_init(stage: str) -> None:
    """The first process of a container ignores SIGTERM until it has a handler."""
    assert 'ENTRYPOINT ["dumb-init", "charlm"]' in stages()[stage]
    assert '"$INIT"' in stages()[f"{stage}-build"]


def test_the_server_is_healthy_when_its_health_service_says_so() -> None:
    (check,) = re.findall(r"(?ms)^HEALTHCHECK .*?CMD (\[.*?\])", stages()["server"])

    assert check.startswith('["charlm", "health"')


def test_the_client_image_installs_no_extra() -> None:
    assert re.search(r'pip install [^\n]*\s\. "\$INIT"$', stages()["client-build"], re.MULTILINE)
    assert "[server" not in stages()["client"]


def test_every_copied_path_exists() -> None:
    copied = re.findall(r"(?m)^COPY (?!--from)(.+)$", DOCKERFILE)
    sources = [source for line in copied for source in line.split()[:-1]]

    assert sources
    assert all((ROOT / source).exists() for source in sources)


def test_nothing_but_sources_reaches_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {
        "pyproject.toml", "README.md", "LICENSE", "proto/charlm", "client/charlm_client",
        "model/charlm_model", "server/charlm_server", "training/charlm_training",
    }  # fmt: skip


@pytest.mark.slow
def test_the_static_checks_pass_and_say_what_was_not_run() -> None:
    command = [sys.executable, ROOT / "deploy" / "containers" / "verify.py", "static"]

    checked = subprocess.run(command, capture_output=True, text=True)

    assert checked.returncode == 0, checked.stderr
    for program in ("hadolint", "check-jsonschema", "docker compose"):
        told = [line for line in checked.stdout.splitlines() if program in line]
        assert all(line.strip().startswith(("ok: ", "NOT RUN: ")) for line in told)
        assert told
