"""A run in the workers of a Ray cluster: `charlm train --ray ADDRESS`.

Ray Train places the workers, connects them by gloo and starts them again when one is lost; the
saved state of the run says where to continue. All hosts need the text and `--out` at the same path.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch.distributed as dist
from rich.console import Console

from charlm_model.errors import ModelError
from charlm_training.corpus.reader import BUILTIN_PREFIX
from charlm_training.device import AUTO
from charlm_training.errors import (
    ClusterFailed,
    InvalidOption,
    NotPossible,
    ProcessLost,
    TrainingError,
)
from charlm_training.monitoring.events import Event, Listener, Noticed
from charlm_training.monitoring.progress import progress_on
from charlm_training.planning.options import TrainOptions
from charlm_training.process_group import LONGEST_WAIT, ProcessGroup
from charlm_training.run.run import RunOutcome
from charlm_training.run.session import train_in_terminal

MOST_WORKERS, USUAL_RESTARTS = 4096, 3
ANSWER_S, SHOW_INTERVAL_S = 5.0, 0.25
CLIENT_SCHEME = "ray://"


@dataclass(frozen=True, kw_only=True, slots=True)
class RayOptions:
    """The cluster and its workers; `workers` None means one per host."""

    address: str
    workers: int | None = None
    max_restarts: int = USUAL_RESTARTS
    """How often all workers are started again after one was lost."""

    def __post_init__(self) -> None:
        if self.workers is not None and not 1 <= self.workers <= MOST_WORKERS:
            raise InvalidOption(
                f"--ray-workers is {self.workers}; it must be from 1 to {MOST_WORKERS}."
            )
        if not 0 <= self.max_restarts <= 1_000_000:
            raise InvalidOption(
                f"--ray-restarts is {self.max_restarts}; it must be from 0 to 1000000."
            )

    @classmethod
    def of_flags(
        cls, address: str | None, *, workers: int | None, restarts: int | None
    ) -> RayOptions | None:
        """None without --ray; then other flags of Ray are refused."""
        if address is not None:
            return cls(
                address=address,
                workers=workers,
                max_restarts=USUAL_RESTARTS if restarts is None else restarts,
            )
        for flag, value in (("--ray-workers", workers), ("--ray-restarts", restarts)):
            if value is not None:
                raise InvalidOption(
                    f"{flag} is {value}, but it needs --ray ADDRESS; give that too, or leave "
                    f"{flag} out."
                )
        return None


@dataclass(slots=True)
class EventRelay:
    """An actor that passes events from workers to the command. It outlives lost workers."""

    attempts: int = 0
    refusal: str = ""
    events: list[Event] = field(default_factory=list)

    def begin(self) -> int:
        """Count an attempt; returns the number of earlier ones."""
        self.attempts += 1
        return self.attempts - 1

    def refuse(self, sentence: str) -> None:
        self.refusal = self.refusal or sentence

    def refused(self) -> str:
        return self.refusal

    def publish(self, event: Event) -> None:
        self.events.append(event)

    def drain(self) -> list[Event]:
        """The events since the last call."""
        events, self.events = self.events, []
        return events


def train_on_ray(options: TrainOptions, where: RayOptions, *, tensorboard: bool) -> RunOutcome:
    """Returns the outcome of the first worker. Raises ClusterFailed when Ray gives up."""
    with cluster(where.address) as ray:
        relay = ray.remote(num_cpus=0)(EventRelay).remote()
        nodes = [each["Resources"].get("CPU", 0) for each in ray.nodes() if each["Alive"]]
        num_workers = where.workers or max(sum(num_cpus >= 1 for num_cpus in nodes), 1)
        num_cpus = cpus_of_worker(nodes, num_workers)
        task = {"options": everywhere(options), "relay": relay, "tensorboard": tensorboard}
        with (
            redirect_stdout(sys.stderr),  # Ray prints warnings; stdout is for the report alone
            progress_on(Console(stderr=True)) as listener,
            _shown(ray, relay, listener),
        ):
            if (wanted := num_workers * num_cpus) > ray.available_resources().get("CPU", 0):
                listener(Noticed(text=f"Waits until {wanted} processors of the cluster are free."))
            returned = _fit(task, where, num_workers, num_cpus)
    if "refusal" in returned:
        raise TrainingError(returned["refusal"])
    return RunOutcome(**returned)


def everywhere(options: TrainOptions) -> TrainOptions:
    """Options for workers, which start in another directory and have no GPU: absolute paths."""
    if options.device not in (AUTO, "cpu"):
        raise InvalidOption(f"--device is {options.device}, but --ray trains on processors.")
    is_builtin = options.corpus.startswith(BUILTIN_PREFIX)
    corpus = options.corpus if is_builtin else os.path.abspath(options.corpus)
    return replace(options, corpus=corpus, out=options.out.absolute(), device="cpu")


def cpus_of_worker(nodes: list[float], num_workers: int) -> int:
    """The most processors per worker with which all workers fit on the nodes.

    Raises InvalidOption when there is less than one for each.
    """
    for num_cpus in range(int(max(nodes, default=0)), 0, -1):
        if sum(int(each // num_cpus) for each in nodes) >= num_workers:
            return num_cpus
    raise InvalidOption(
        f"--ray-workers is {num_workers}, but the cluster has {sum(map(int, nodes))} processors; "
        "each worker needs one."
    )


@contextmanager
def cluster(address: str) -> Iterator[Any]:
    """A connection to a cluster: the library, ready for use."""
    ray = _library()
    _require_answer(address)
    try:
        # The relay passes the events of workers on.
        ray.init(address, logging_level=logging.WARNING, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClusterFailed(
            f"--ray is {address!r}, but no cluster can be reached there: {_first_line(error)} "
            "Start one with `ray start --head`, and give the address that it prints, or `local`."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _library() -> Any:
    """Imports Ray, an optional extra."""
    # Ray sends usage statistics to its developers; training is private.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.train.torch
    except ImportError as error:
        raise NotPossible(
            "--ray needs Ray, which is not installed. Run: pip install 'charlm[ray]'"
        ) from error
    return ray


def _require_answer(address: str) -> None:
    """Fail at once when nothing listens, because Ray itself tries for minutes."""
    host, _, port = address.removeprefix(CLIENT_SCHEME).rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterFailed(
            f"--ray is {address!r}, but nothing answers there ({_first_line(error)}) Start a "
            "cluster with `ray start --head`, and give the address that it prints."
        ) from error


@contextmanager
def _shown(ray: Any, relay: Any, listener: Listener) -> Iterator[None]:
    """Pass events of workers to the listener, while the block runs and once at its end."""
    is_over = threading.Event()

    def show() -> None:
        with suppress(ray.exceptions.RayError):  # the actor is gone: no more events
            while not is_over.wait(SHOW_INTERVAL_S):
                for event in ray.get(relay.drain.remote()):
                    listener(event)
            for event in ray.get(relay.drain.remote()):
                listener(event)

    thread = threading.Thread(target=show, name="charlm-ray-progress")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _fit(
    task: Mapping[str, Any], where: RayOptions, num_workers: int, num_cpus: int
) -> dict[str, Any]:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    out: Path = task["options"].out
    storage = out.with_name(out.name + ".ray")
    trainer = TorchTrainer(
        work,
        train_loop_config=dict(task),
        torch_config=TorchConfig(backend="gloo", timeout_s=int(LONGEST_WAIT.total_seconds())),
        scaling_config=ScalingConfig(
            num_workers=num_workers, resources_per_worker={"CPU": num_cpus}
        ),
        run_config=RunConfig(
            storage_path=str(storage), failure_config=FailureConfig(max_failures=where.max_restarts)
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise ClusterFailed(
            f"Training on Ray failed: {_cause(error)} Give the same command again, with --resume "
            "to go on from the last save."
        ) from error
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    returned: dict[str, Any] = result.return_value
    return returned


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Runs in every worker; `train_on_ray` gets the value of the first."""
    import ray

    relay, group = task["relay"], ProcessGroup(dist.get_rank(), dist.get_world_size())
    try:
        attempts = group.run_on_first(lambda: ray.get(relay.begin.remote()))
        options: TrainOptions = task["options"]
        if attempts:
            options = replace(options, resume=True)
            _publish(relay, group, Noticed(text="A worker was lost; all were started again."))
        view = nullcontext(lambda event: _publish(relay, group, event))
        outcome = train_in_terminal(
            options, tensorboard=task["tensorboard"], group=group, view=view
        )
    except ProcessLost:
        # Another worker ended with an error of the user: a new attempt would end in the same one.
        if refusal := ray.get(relay.refused.remote()):
            return {"refusal": refusal}
        raise
    except (TrainingError, ModelError) as error:
        ray.get(relay.refuse.remote(str(error)))
        dist.destroy_process_group()
        return {"refusal": str(error)}
    return {"report": outcome.report, "stopped_by": outcome.stopped_by}


def _publish(relay: Any, group: ProcessGroup, event: Event) -> None:
    if group.is_first:
        relay.publish.remote(event)


def _cause(error: Exception) -> str:
    """The last line of the trace of a worker, or of the controller."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    lines = str(next(iter(failures.values()), error)).strip().splitlines()
    return f"{lines[-1].rstrip('.')}." if lines else f"{type(error).__name__}."


def _first_line(error: BaseException) -> str:
    """The first line of the error, with a full stop."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if line.endswith(".") else f"{line}."
