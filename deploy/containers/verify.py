"""Proves the images and the compose file: with a Docker engine for real, without one as far as
their texts go, and says what was not run.

verify.py              static checks; then, where an engine answers, build, up, probe and down
verify.py PHASE...     only these: static, build, up, probe, down
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STREAMING = Path(__file__).with_name("streaming.py")
BIN = Path(sys.prefix) / "bin"
USER = "10001:10001"
# Measured 1.58 and 0.33 GB, 0.26 of each are the base's.
MAX_SERVER_BYTES, MAX_CLIENT_BYTES = 1_750_000_000, 400_000_000
NUM_TOKENS = int(os.environ.get("CHARLM_VERIFY_TOKENS", "200000"))  # seconds of streaming
STOP_TIMEOUT_S = 40
KILLED = 137  # the exit code of what had to be killed
MODELS = Path(os.environ.get("CHARLM_MODELS", ROOT / "models"))


class Failed(Exception):
    """A check that did not hold, in a sentence."""


def run(*command: str | Path) -> str:
    """What a command printed. Raises Failed with its complaint."""
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command[:6]))} ended with {done.returncode}: "
                     f"{(done.stderr or done.stdout).strip()[-600:]}")  # fmt: skip
    return done.stdout.strip()


def compose(*arguments: str) -> str:
    return run("docker", "compose", *arguments)


def succeeds(*command: str) -> bool:
    if not shutil.which(command[0]):
        return False
    return subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0


def check(holds: bool, what: str) -> None:
    if not holds:
        raise Failed(f"not true: {what}")
    print(f"  ok: {what}", flush=True)


# --- phases ---


def static() -> None:
    """What the texts alone can tell."""
    lint("hadolint", "Dockerfile")
    lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")
    if succeeds("docker", "compose", "version"):
        for profile in ("", "train", "envoy", "observe"):
            compose("--profile", profile, "config", "--quiet")
        check(True, "docker compose understands docker-compose.yml in every profile")
    else:
        print("  NOT RUN: docker compose config; docker compose is not installed")


def lint(program: str, *arguments: str) -> None:
    found = shutil.which(program, path=f"{BIN}:{os.environ['PATH']}")
    if not found:
        print(f"  NOT RUN: {program}; it is not installed: pip install 'charlm[deploy]'")
        return
    run(found, *arguments)
    check(True, f"{program} has nothing to say about {arguments[-1]}")


def build() -> None:
    compose("build", "--quiet", "server", "demo")


def up() -> None:
    if not list(MODELS.glob("*/config.json")):
        MODELS.mkdir(parents=True, exist_ok=True)
        os.environ |= {"CHARLM_UID": str(os.getuid()), "CHARLM_GID": str(os.getgid())}
        training = "train builtin:python-docs --family lstm --budget 10s --out /models/python-docs"
        compose("--profile", "train", "run", "--rm", "-T", "train", *training.split())
    compose("up", "--detach", "--wait", "--no-build", "server")


def probe() -> None:
    server = compose("ps", "--quiet", "server")
    wait_for_health(server)
    examine_images()
    examine_rights(server)
    said = client("charlm", "generate", "The ", "--max-tokens", "50")
    check(len(said) > 10, "the client container generates")
    survive(server)
    stop_early(server)


def down() -> None:
    compose("down", "--volumes")


# --- probes ---


def examine_images() -> None:
    for image, limit in (("charlm-server", MAX_SERVER_BYTES), ("charlm-client", MAX_CLIENT_BYTES)):
        (about,) = json.loads(run("docker", "image", "inspect", image))
        size = about["Size"]
        check(size <= limit, f"{image} has {size / 1e6:.0f} MB, at most {limit / 1e6:.0f}")
        check(about["Config"]["User"] == USER, f"{image} runs as {USER}")
    finder = "import importlib.util as u; print([m for m in {0!r} if u.find_spec(m)])"
    found = client("python", "-c", finder.format(["torch", "numpy", "safetensors"]))
    check(found == "[]", "the client image has neither torch nor numpy nor safetensors")


def examine_rights(server: str) -> None:
    def inside(*command: str) -> str:
        return run("docker", "exec", server, *command)

    lines = inside("sh", "-c", "cat /proc/[0-9]*/status").splitlines()
    told: dict[str, set[str]] = {}
    for name, _, values in (line.partition(":") for line in lines):
        told.setdefault(name, set()).update(values.split())
    check(told["Uid"] == {USER.split(":")[0]}, "no process in the server's container is root")
    check(told["CapEff"] | told["CapBnd"] == {"0" * 16}, "none has a capability")
    check(told["NoNewPrivs"] == {"1"}, "and none can get one")
    for place in ("/opt/charlm/probe", "/models/probe"):
        written = succeeds("docker", "exec", server, "touch", place)
        check(not written, f"it cannot write {place}")


def survive(server: str) -> None:
    """Kill the server in the middle of a stream, and stop it in the middle of another."""
    undisturbed = finish(start_stream())
    check(undisturbed["num_resumptions"] == 0, f"a stream of {NUM_TOKENS} tokens ends by itself")

    stream = start_stream()
    run("docker", "kill", "--signal", "KILL", server)
    run("docker", "start", server)
    killed = finish(stream)
    check(
        killed["num_resumptions"] > 0, "the server was killed in mid-stream and the client resumed"
    )
    check(killed["digest"] == undisturbed["digest"], "to the same text and the same log-probs")

    wait_for_health(server)
    stream = start_stream()
    run("docker", "stop", "-t", str(STOP_TIMEOUT_S), server)
    (about,) = json.loads(run("docker", "inspect", server))
    check(about["State"]["ExitCode"] == 0, "SIGTERM in mid-stream: drained, exit code 0")
    run("docker", "start", server)
    check(
        finish(stream)["digest"] == undisturbed["digest"], "and its stream went on to the same text"
    )


def stop_early(server: str) -> None:
    """Ask a server to stop that has only begun to start."""
    for command in (["stop"], ["start"], ["stop", "-t", str(STOP_TIMEOUT_S)]):
        run("docker", *command, server)
    (about,) = json.loads(run("docker", "inspect", server))
    check(about["State"]["ExitCode"] != KILLED, "a server that is starting stops when it is asked")


def start_stream() -> "subprocess.Popen[str]":
    """A client container in the middle of a stream."""
    command = client_command("python", "-c", STREAMING.read_text(), str(NUM_TOKENS))
    stream = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert stream.stdout is not None
    check(stream.stdout.readline() == "streaming\n", "a client streams")
    return stream


def finish(stream: "subprocess.Popen[str]") -> dict[str, Any]:
    told, _ = stream.communicate()
    if stream.returncode:
        raise Failed(f"the streaming client ended with {stream.returncode}: {told}")
    answer: dict[str, Any] = json.loads(told)
    return answer


def client(*command: str) -> str:
    return run(*client_command(*command))


def client_command(program: str, *arguments: str) -> list[str]:
    run_in_client = ["docker", "compose", "run", "--rm", "--no-deps", "-T", "--entrypoint"]
    return [*run_in_client, program, "demo", *arguments]


def wait_for_health(container: str) -> None:
    """Docker's own events tell; it is asked once before, in case it has told already."""
    status = run("docker", "inspect", "--format", "{{.State.Health.Status}}", container)
    if status != "healthy":
        compose("up", "--detach", "--wait", "--no-build", "server")
    check(True, "the server is healthy")


PHASES: dict[str, Callable[[], None]] = {
    phase.__name__: phase for phase in (static, build, up, probe, down)
}


def main(names: list[str]) -> int:
    if not names:
        names = ["static"]
        if succeeds("docker", "info"):
            names = list(PHASES)
        else:
            print("NOT RUN: build, up, probe. No Docker engine answers; start one for the rest.")
    try:
        for name in names:
            print(f"{name}:", flush=True)
            PHASES[name]()
    except Failed as failure:
        print(f"verify: {failure}", file=sys.stderr)
        if "down" in names:
            print(compose("logs", "--tail", "50"), file=sys.stderr)
            down()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
