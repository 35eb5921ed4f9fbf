"""The processes that train one model; each has its share of the rows of every batch.

`torchrun` starts them. All make the same decisions: what depends on a clock, a signal or a disk is
decided by the first process and broadcast; all else follows from gradients that are all-reduced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from charlm_model.state import State
from charlm_training.errors import ProcessLost

T = TypeVar("T")

# The environment variables that torchrun sets; without all of them there is a single process.
TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# The longest wait for the first process, which evaluates. A dead process is noticed at once.
LONGEST_WAIT = timedelta(days=1)
FIRST = 0


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes of a run. Each of them must make the same calls in the same order."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Only the first process writes, prints and evaluates."""
        return self.rank == FIRST

    @property
    def is_single(self) -> bool:
        return self.size == 1

    @property
    def command(self) -> list[str]:
        """The command that starts as many processes on one host."""
        if self.is_single:
            return []
        return ["torchrun", "--nproc-per-node", str(self.size), "--no-python"]

    def run_on_first(self, make: Callable[[], T]) -> T:
        """The first process's result, in every process. `make` must not call a group."""
        if self.is_single:
            return make()
        box = [make() if self.is_first else None]
        with _lost_processes():
            dist.broadcast_object_list(box, src=FIRST)
        value: T = box[0]  # type: ignore[assignment]  # the first put a T there
        return value

    def broadcast_number(self, value: float) -> float:
        """The number of the first process; faster than `run_on_first`, which pickles objects."""
        if self.is_single:
            return value
        number = torch.tensor([value], dtype=torch.float64)
        with _lost_processes():
            dist.broadcast(number, src=FIRST)
        return float(number)

    def any(self, answer: bool) -> bool:
        """Whether the answer of any process is true."""
        if self.is_single:
            return answer
        highest = torch.tensor([answer], dtype=torch.int32)
        with _lost_processes():
            dist.all_reduce(highest, op=dist.ReduceOp.MAX)
        return bool(highest)

    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
        """Replace gradients by their sums over all processes; returns the sum of the losses.

        One message holds everything, so that the network is waited for once.
        """
        if self.is_single:
            return loss
        gradients = [each.grad for each in parameters if each.grad is not None]
        bucket_N = torch.cat([*(each.flatten() for each in gradients), loss.view(1)])
        with _lost_processes():
            dist.all_reduce(bucket_N)
        parts = bucket_N.split([*(each.numel() for each in gradients), 1])
        for gradient, part in zip(gradients, parts[:-1], strict=True):
            gradient.copy_(part.view_as(gradient))
        total: Tensor = parts[-1][0]
        return total

    def broadcast_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Those of the first process, in place: other processors may draw other random numbers."""
        if not self.is_single:
            with _lost_processes():
                for tensor in weights.values():
                    dist.broadcast(tensor, src=FIRST)

    def gather_rows(self, state: State, own: slice, batch_size: int) -> State:
        """The state of the whole batch, as a single process would have it; always a copy."""
        if self.is_single:
            return state.clone()
        return State(
            {name: _gathered(tensor, own, batch_size) for name, tensor in state.tensors.items()}
        )


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def process_group_from(environment: Mapping[str, str]) -> Iterator[ProcessGroup]:
    """The group that torchrun started, or a single process."""
    if (
        any(name not in environment for name in TORCHRUN_VARIABLES)
        or environment["WORLD_SIZE"] == "1"
    ):
        yield SINGLE_PROCESS
        return
    # No backend is named: torch takes gloo for what lies in memory, nccl for what lies on a GPU.
    with _lost_processes():
        dist.init_process_group(timeout=LONGEST_WAIT)
    try:
        local_rank = int(environment.get("LOCAL_RANK", "0"))
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), local_rank)
    finally:
        dist.destroy_process_group()


def _gathered(tensor: Tensor, own: slice, batch_size: int) -> Tensor:
    """Every process adds its rows to zeros, as bytes, so that -0.0 stays different from 0.0."""
    whole = tensor.new_zeros(batch_size, *tensor.shape[1:])
    whole[own] = tensor
    with _lost_processes():
        dist.all_reduce(whole.view(-1).view(torch.uint8))
    return whole


@contextmanager
def _lost_processes() -> Iterator[None]:
    """Turns an error of torch when another process has ended into ProcessLost."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost(
            "Another process of this run has ended or cannot be reached; its own message says "
            "why. Start all of them again, with --resume to go on from the last save."
        ) from error
