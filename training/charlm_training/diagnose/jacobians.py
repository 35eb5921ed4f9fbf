"""How strongly a recurrent state depends on the state k steps before it: ||ds_T / ds_t||.

Every state vector of every layer is a coordinate of its own: dc_T/dc_t of an LSTM is what flows
along the cell states and through later gates, not through h_t at the moment t itself.

Legend: B batch, T time, H hidden, L layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from charlm_model.families.recurrent import RecurrentModel
from charlm_model.layers.recurrent_cells import CELLS

NUM_PROBES = 8


def unrolled(model: RecurrentModel, ids_BT: Tensor) -> list[dict[str, Tensor]]:
    """The top layer's state before the first step and after each, as nodes that keep gradients."""
    states = initial_nodes(model, len(ids_BT))
    top = [states[-1]]
    for input_BE in model.embedding(ids_BT).unbind(1):
        for layer, state in enumerate(states):
            after = cell_step(model, layer, input_BE, tuple(state.values()))
            # A node of its own: what h_t takes from c_t inside this step does not count as c's.
            states[layer] = _nodes(tuple(state), after)
            input_BE = states[layer]["hidden"]
        top.append(states[-1])
    return top


def initial_nodes(model: RecurrentModel, num_rows: int) -> list[dict[str, Tensor]]:
    names, width = CELLS[model.config.family].state_names, model.config.hidden_size
    zeros = tuple(torch.zeros(num_rows, width, dtype=model.head.weight.dtype) for _ in names)
    return [
        _nodes(names, tuple(zero.requires_grad_() for zero in zeros))
        for _ in range(model.config.num_layers)
    ]


def state_gradients(
    model: RecurrentModel, ids_BT: Tensor, name: str, *, num_probes: int = NUM_PROBES, seed: int = 0
) -> list[float]:
    """||ds_T/ds_(T-k)||_F / sqrt(H) for k = 0 to T, the root of its mean square over the rows.

    By Hutchinson's estimator: E ||J^T v||^2 = ||J||_F^2 for random signs v. With at least H
    probes the unit vectors are taken instead, and nothing is estimated.
    """
    top = unrolled(model, ids_BT)
    nodes = [state[name] for state in top]
    num_rows, width = nodes[-1].shape
    squares = [0.0] * len(nodes)
    probes_PH = _probes(num_probes, width, seed).to(nodes[-1].dtype)
    for probe_H in probes_PH:
        gradients = torch.autograd.grad(
            nodes[-1], nodes, probe_H.expand(num_rows, width), retain_graph=True
        )
        for lag, gradient_BH in enumerate(reversed(gradients)):
            squares[lag] += float(gradient_BH.double().square().sum())
    # Random signs see every dimension at once, a unit vector sees one of them.
    seen = num_rows * width * (num_probes if num_probes < width else 1)
    return [(square / seen) ** 0.5 for square in squares]


def _probes(num_probes: int, width: int, seed: int) -> Tensor:
    if num_probes >= width:
        return torch.eye(width)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (num_probes, width), generator=generator) * 2.0 - 1.0


def cell_step(
    model: RecurrentModel, layer: int, input_BE: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    network: nn.RNNBase = model.recurrent

    def parameter(kind: str) -> Tensor:
        value: Tensor = getattr(network, f"{kind}_l{layer}")
        return value

    from_input_BG = linear(input_BE, parameter("weight_ih"), parameter("bias_ih"))
    from_hidden_BG = linear(state[0], parameter("weight_hh"), parameter("bias_hh"))
    return CELLS[model.config.family].step(from_input_BG, from_hidden_BG, state)


def _nodes(names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in zip(names, tensors, strict=True)}
