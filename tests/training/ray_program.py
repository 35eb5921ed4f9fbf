"""Trains on a Ray cluster of its own, where a worker is killed, and alone.

ray_program.py TEXT FOLDER     the checkpoints are FOLDER/together and FOLDER/alone
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from ray.cluster_utils import Cluster

from charlm_training import ray_train
from charlm_training.errors import TrainingError
from charlm_training.planning.options import SizeOptions, TrainOptions
from charlm_training.ray_train import RayOptions, train_on_ray
from charlm_training.run.session import train_in_terminal
from charlm_training.step.learner import Learner, StepResult

SIZES = {"hidden_size": 16, "num_layers": 2, "dropout": 0.2, "window_length": 16}
RATE = 2e-3
NUM_STEPS, DEADLY_STEP = 12, 5


def options(text: Path, out: Path, batch_size: int) -> TrainOptions:
    size = SizeOptions(**SIZES, batch_size=batch_size, learning_rate=RATE)
    return TrainOptions(corpus=str(text), out=out, steps=NUM_STEPS, save_interval_s=0.0, size=size)


def deadly_work(task: dict[str, Any]) -> dict[str, Any]:
    """The second worker kills itself, once."""
    import torch.distributed as dist

    step, once = Learner.step, task["options"].out.with_name("killed")

    def step_or_die(learner: Learner, rate: float) -> StepResult:
        if learner.spent.steps == DEADLY_STEP and dist.get_rank() == 1 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return step(learner, rate)

    Learner.step = step_or_die  # type: ignore[method-assign]
    try:
        return work(task)
    finally:
        Learner.step = step  # type: ignore[method-assign]


work = ray_train.work

if __name__ == "__main__":
    text, folder = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    train_in_terminal(options(text, folder / "alone", 5), tensorboard=False)
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    where = RayOptions(address=cluster.address, workers=2)
    ray_train.work = deadly_work
    outcome = train_on_ray(options(text, folder / "together", 5), where, tensorboard=False)
    print(outcome.stopped_by, outcome.report["training"]["processes"])
    ray_train.work = work
    try:
        train_on_ray(options(text, folder / "refused", 1), where, tensorboard=False)
    except TrainingError as error:
        print(error)
    cluster.shutdown()
