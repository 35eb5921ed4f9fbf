"""A model's step as a program of torch.export, with any number of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from charlm_model.families.recurrent import RecurrentModel
from charlm_model.families.transformer import Transformer
from charlm_model.language_model import LanguageModel
from charlm_training.errors import NotPossible
from charlm_training.export.recurrent_step import RecurrentStep
from charlm_training.export.transformer_step import TransformerStep

MOST_ROWS = 65_536
# With one row only, the number of rows would be taken for a constant.
EXAMPLE_ROWS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class StepProgram:
    """`program(ids, *state)` gives logits and the state after; `initial` is one row's start."""

    program: ExportedProgram
    state_names: tuple[str, ...]
    initial: tuple[Tensor, ...]

    def step(self) -> Callable[..., tuple[Tensor, ...]]:
        module: Callable[..., tuple[Tensor, ...]] = self.program.module()
        return module


@torch.no_grad()
def step_program(model: LanguageModel) -> StepProgram:
    """Traces the model. Raises NotPossible for a family without a computation graph."""
    model.eval()
    module, initial = _step_of(model)
    state = tuple(each.expand(EXAMPLE_ROWS, *each.shape[1:]).clone() for each in initial)
    rows = {0: Dim("rows", min=1, max=MOST_ROWS)}
    program = torch.export.export(
        module.eval(),
        (torch.ones(EXAMPLE_ROWS, dtype=torch.long), *state),
        dynamic_shapes={"ids_B": rows, "state": tuple(rows for _ in state)},
    )
    return StepProgram(program=program, state_names=module.state_names, initial=initial)


def _step_of(
    model: LanguageModel,
) -> tuple[RecurrentStep | TransformerStep, tuple[Tensor, ...]]:
    config = model.config
    if isinstance(model, RecurrentModel):
        return RecurrentStep(model), tuple(model.initial_state(1).tensors.values())
    if isinstance(model, Transformer):
        head_width = config.hidden_size // config.num_heads
        ring = torch.zeros(
            1, config.num_layers, config.num_heads, config.context_length, head_width
        )
        others = tuple(model.initial_state(1).tensors.values())[2:]
        return TransformerStep(model), (ring, ring, *others)
    raise NotPossible(
        f"A model of the family {config.family} is a table of counts, which cannot be "
        "exported; serve it instead."
    )
