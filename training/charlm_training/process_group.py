"""Several processes that train one model: each takes its share of the rows of every batch.

`torchrun` starts them. They stay in step because all that a clock, a signal or a disk decides is
decided by the first and told to the others, and all else follows from sums they have in common.
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

# What torchrun tells each process; all of it, or the process is alone.
TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# The others wait this long for the first, which evaluates; a process that dies is noticed at once.
LONGEST_WAIT = timedelta(days=1)
FIRST = 0


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes of a run, seen from one of them. All must make the same calls in turn."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """The first one alone writes, prints and evaluates."""
        return self.rank == FIRST

    @property
    def is_single(self) -> bool:
        return self.size == 1

    @property
    def command(self) -> list[str]:
        """What starts as many processes on one host."""
        if self.is_single:
            return []
        return ["torchrun", "--nproc-per-node", str(self.size), "--no-python"]

    def run_on_first(self, make: Callable[[], T]) -> T:
        """The first process's result, in every process. `make` must not call a group."""
        if self.is_single:
            return make()
        box = [make() if self.is_first else None]
        with _peers():
            dist.broadcast_object_list(box, src=FIRST)
        value: T = box[0]  # type: ignore[assignment]  # the first put a T there
        return value

    def broadcast_number(self, value: float) -> float:
        """The first one's number, told faster than `run_on_first` tells objects."""
        if self.is_single:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        with _peers():
            dist.broadcast(told, src=FIRST)
        return float(told)

    def any(self, answer: bool) -> bool:
        """Whether it is so for any process."""
        if self.is_single:
            return answer
        highest = torch.tensor([answer], dtype=torch.int32)
        with _peers():
            dist.all_reduce(highest, op=dist.ReduceOp.MAX)
        return bool(highest)

    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
        """Put the sum of all processes' gradients in place; returns the sum of their losses.

        One message holds everything, so that the network is waited for once.
        """
        if self.is_single:
            return loss
        gradients = [each.grad for each in parameters if each.grad is not None]
        bucket_N = torch.cat([*(each.flatten() for each in gradients), loss.view(1)])
        with _peers():
            dist.all_reduce(bucket_N)
        parts = bucket_N.split([*(each.numel() for each in gradients), 1])
        for gradient, part in zip(gradients, parts[:-1], strict=True):
            gradient.copy_(part.view_as(gradient))
        total: Tensor = parts[-1][0]
        return total

    def broadcast_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Those of the first process, in place: no two processors need draw the same numbers."""
        if not self.is_single:
            with _peers():
                for tensor in weights.values():
                    dist.broadcast(tensor, src=FIRST)

    def gather_rows(self, state: State, own: slice, batch_size: int) -> State:
        """The state of the whole batch, as one process would have it; a copy in any case."""
        if self.is_single:
            return state.clone()
        return State(
            {name: _gathered(tensor, own, batch_size) for name, tensor in state.tensors.items()}
        )


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def process_group_from(environment: Mapping[str, str]) -> Iterator[ProcessGroup]:
    """The group that torchrun started, or a process alone."""
    if any(name not in environment for name in TOLD) or environment["WORLD_SIZE"] == "1":
        yield SINGLE_PROCESS
        return
    # No backend is named: torch takes gloo for what lies in memory, nccl for what lies on a GPU.
    with _peers():
        dist.init_process_group(timeout=LONGEST_WAIT)
    try:
        local_rank = int(environment.get("LOCAL_RANK", "0"))
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), local_rank)
    finally:
        dist.destroy_process_group()


def _gathered(tensor: Tensor, own: slice, batch_size: int) -> Tensor:
    """Every process adds its rows to zeros. As bytes, because 0.0 and -0.0 are to stay apart."""
    whole = tensor.new_zeros(batch_size, *tensor.shape[1:])
    whole[own] = tensor
    with _peers():
        dist.all_reduce(whole.view(-1).view(torch.uint8))
    return whole


@contextmanager
def _peers() -> Iterator[None]:
    """What torch says when another process is gone, as a sentence."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost(
            "Another process of this run has ended or cannot be reached; its own message says "
            "why. Start all of them again, with --resume to go on from the last save."
        ) from error
