"""Workers of a Ray cluster learn what one process learns, also when one of them is killed."""

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
from safetensors.torch import load_file
from torch.testing import assert_close
from typer.testing import CliRunner, Result

from charlm_training.cli import train
from charlm_training.errors import InvalidOption
from charlm_training.planning.options import TrainOptions
from charlm_training.ray_train import EventRelay, RayOptions, cpus_of_worker, everywhere

PROGRAM = Path(__file__).parent / "ray_program.py"
TEXT = "the cat sat on the mat.\nthe dog sat on the cat.\nWho is it that can tell me?\n" * 40
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")
needs_cluster = pytest.mark.skipif(
    "CHARLM_RAY" not in os.environ, reason="takes a minute: make ray"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process made, in `alone`, and two workers in `together`."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "text.txt").write_text(TEXT)
    done = subprocess.run(
        [sys.executable, PROGRAM, folder / "text.txt", folder],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "said.txt").write_text(done.stdout)
    (folder / "shown.txt").write_text(done.stderr)
    return folder


def logged(out: Path, event: str, name: str) -> list[float]:
    log = out.with_name(out.name + ".run") / "log.jsonl"
    events = map(json.loads, log.read_text().splitlines())
    return [each[name] for each in events if each["event"] == event]


@needs_ray
@needs_cluster
@pytest.mark.slow
def test_after_a_killed_worker_the_loss_curve_is_that_of_one_process(folder: Path) -> None:
    alone, together = folder / "alone", folder / "together"

    losses = logged(alone, "progressed", "loss_nats")
    assert len(losses) == 12
    assert logged(together, "progressed", "loss_nats") == pytest.approx(losses, rel=1e-4)
    nats = logged(alone, "evaluated", "nats_per_token")
    assert logged(together, "evaluated", "nats_per_token") == pytest.approx(nats, rel=1e-4)
    ours, theirs = (load_file(out / "model.safetensors") for out in (alone, together))
    for name, tensor in ours.items():
        assert_close(theirs[name], tensor, rtol=0.02, atol=0.002)


@needs_ray
@needs_cluster
@pytest.mark.slow
def test_the_command_shows_what_happened_to_its_workers(folder: Path) -> None:
    shown = (folder / "shown.txt").read_text()

    assert "A worker was lost; all were started again." in shown
    assert "Resumed at step 5." in shown
    assert (folder / "said.txt").read_text().splitlines()[0] == "budget 2"
    assert not (folder / "together.ray").exists()


@needs_ray
@needs_cluster
@pytest.mark.slow
def test_an_error_of_the_user_in_a_worker_ends_the_run_without_a_restart(folder: Path) -> None:
    said = (folder / "said.txt").read_text().splitlines()[1]

    assert said.startswith("2 processes cannot share a batch of 1 rows")
    assert "worker was lost" not in (folder / "shown.txt").read_text().split("Resumed at step 5")[1]


@needs_ray
@pytest.mark.slow
def test_an_address_where_nothing_answers_is_refused(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"

        done = trained(tmp_path, "--ray", address)

    assert done.exit_code == 1
    assert f"charlm: --ray is '{address}', but nothing answers there" in done.stderr


@pytest.mark.slow
def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    done = trained(tmp_path, "--ray", "auto")

    assert done.exit_code == 1
    assert "pip install 'charlm[ray]'" in done.stderr


def trained(folder: Path, *flags: str) -> Result:
    (folder / "text.txt").write_text(TEXT)
    app = typer.Typer()
    app.command()(train)
    arguments = [str(folder / "text.txt"), "--out", str(folder / "out"), "--steps", "1"]
    return CliRunner().invoke(app, [*arguments, *flags])


@pytest.mark.parametrize(
    ("nodes", "num_workers", "expected"),
    [([2], 2, 1), ([16, 16], 2, 16), ([16, 16], 4, 8), ([3, 3], 3, 1), ([16, 0, 4], 2, 8)],
)
def test_workers_share_the_processors_of_the_hosts(
    nodes: list[float], num_workers: int, expected: int
) -> None:
    assert cpus_of_worker(nodes, num_workers) == expected


def test_more_workers_than_processors_are_refused() -> None:
    with pytest.raises(InvalidOption, match="--ray-workers is 5, but the cluster has 4 processors"):
        cpus_of_worker([2, 2], 5)


@pytest.mark.parametrize("flags", [{"workers": 0}, {"max_restarts": -1}])
def test_options_out_of_range_are_refused(flags: dict[str, int]) -> None:
    with pytest.raises(InvalidOption, match="it must be from"):
        RayOptions(address="auto", **flags)


def test_flags_that_need_a_cluster_are_refused_without_one() -> None:
    for flag, value in (("workers", 2), ("restarts", 0)):
        flags = {"workers": None, "restarts": None, flag: value}
        with pytest.raises(InvalidOption, match=f"--ray-{flag} is {value}, but it needs --ray"):
            RayOptions.of_flags(None, **flags)

    assert RayOptions.of_flags(None, workers=None, restarts=None) is None
    assert RayOptions.of_flags("auto", workers=2, restarts=None) == RayOptions(
        address="auto", workers=2, max_restarts=3
    )


def test_workers_find_the_same_paths_wherever_they_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    made = everywhere(TrainOptions(corpus="texts/*.txt", out=Path("model")))

    assert (made.corpus, made.out) == (str(tmp_path / "texts" / "*.txt"), tmp_path / "model")
    builtin = TrainOptions(corpus="builtin:python-docs", out=Path("model"))
    assert everywhere(builtin).corpus == "builtin:python-docs"


def test_the_relay_keeps_the_first_refusal() -> None:
    relay = EventRelay()

    relay.refuse("The text is too short.")
    relay.refuse("Another process is gone.")

    assert relay.refused() == "The text is too short."
    assert (relay.begin(), relay.begin()) == (0, 1)
