"""A model's state between steps: named tensors whose first dimension is the batch row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from charlm_model.tensor_memory import clone, copy


@dataclass(frozen=True, slots=True)
class State:
    """Row b of every tensor belongs to sequence b. Tensors are named, never positional."""

    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def batch_size(self) -> int:
        return len(next(iter(self.tensors.values())))

    @property
    def device(self) -> torch.device:
        return next(iter(self.tensors.values())).device

    @property
    def num_bytes_per_row(self) -> int:
        return sum(tensor[0].numel() * tensor.element_size() for tensor in self.tensors.values())

    def select_rows(self, rows: Sequence[int]) -> "State":
        """The given rows, in the given order; a row may be taken more than once."""
        if rows and list(rows) == list(range(rows[0], rows[0] + len(rows))) and rows[0] >= 0:
            return self.rows(rows[0], rows[-1] + 1).clone()  # ten times as fast as index_select
        index = torch.tensor(rows, dtype=torch.long, device=self.device)
        return State({name: each.index_select(0, index) for name, each in self.tensors.items()})

    def rows(self, start: int, end: int) -> "State":
        """A view of the rows from `start` to before `end`."""
        return State({name: tensor[start:end] for name, tensor in self.tensors.items()})

    def put_row(self, row: int, other: "State") -> None:
        """Write the one row of another state over a row, in place."""
        for name, tensor in self.tensors.items():
            copy(tensor[row], other[name][0])

    def begins_in(self, other: "State") -> bool:
        """Whether these rows are a view of the other's first rows."""
        return all(
            tensor.data_ptr() == other[name].data_ptr() and len(tensor) <= len(other[name])
            for name, tensor in self.tensors.items()
        )

    def detach(self) -> "State":
        """The same values with no gradient history: the cut of truncated BPTT."""
        return State({name: tensor.detach() for name, tensor in self.tensors.items()})

    def to(self, device: torch.device, *, copy: bool = False) -> "State":
        """The state on that device; with `copy`, always in memory of its own."""
        if copy and self.device == device:
            return self.clone()
        moved = {name: tensor.to(device, copy=copy) for name, tensor in self.tensors.items()}
        return State(moved)

    def clone(self) -> "State":
        """A copy that later steps cannot change."""
        return State({name: clone(tensor) for name, tensor in self.tensors.items()})


def concat_rows(states: Sequence[State]) -> State:
    """The rows of all states, one below the other."""
    names = states[0].tensors
    return State({name: torch.cat([state[name] for state in states]) for name in names})
