"""One layer of an LSTM in training: an autograd function around our kernels.

Legend: B batch, T time, E inputs, H hidden, G four gates times H, K = E + H.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from charlm_model.kernels.autograd.packing import backward_panels, flat, shard_windows
from charlm_model.kernels.cpu.simd import LANES
from charlm_model.kernels.cpu_training import lstm as kernel

GATES = kernel.GATES


def lstm_layer(
    x_BTE: Tensor, hidden_BH: Tensor, cell_BH: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states of all steps (bfloat16), the last one and the last cell state (float32).

    `weights` are those of one layer in torch's order: input, hidden, and a bias for each.
    """
    y_BTH, last_cell_BH = _LayerFunction.apply(x_BTE, hidden_BH, cell_BH, *weights)  # type: ignore[no-untyped-call]
    return y_BTH, y_BTH[:, -1].float(), last_cell_BH


class _LayerFunction(torch.autograd.Function):
    """Products in bfloat16 with sums in float32; gates and cells in float32."""

    @staticmethod
    def forward(
        ctx: Any, x_BTE: Tensor, hidden_BH: Tensor, cell_BH: Tensor, *weights: Tensor
    ) -> Any:
        from_input_GE, from_hidden_GH, bias_G, other_bias_G = weights
        (B, T, E), H = x_BTE.shape, hidden_BH.shape[1]
        x_BTE = x_BTE.bfloat16().contiguous()
        weight_GK = torch.cat([from_input_GE, from_hidden_GH], 1).bfloat16()
        panels, bias = _panels(weight_GK), _unit_by_unit(bias_G + other_bias_G)
        y_BTH = x_BTE.new_empty(B, T, H)
        gates_BTG, cells_BTH = torch.empty(B, T, GATES * H), torch.empty(B, T, H)
        by_row = [hidden_BH, cell_BH, gates_BTG, cells_BTH, y_BTH]

        def work(rows: slice) -> None:
            x, *others = (flat(each[rows]) for each in (x_BTE, *by_row))
            sizes = (rows.stop - rows.start, T, E, H)
            kernel.forward(sizes, x, flat(panels), flat(bias), *others)

        by_row[:2] = [each.detach().contiguous() for each in by_row[:2]]
        shard_windows(work, B, T, weight_GK.numel())
        ctx.save_for_backward(
            x_BTE, *by_row[:2], from_input_GE, from_hidden_GH, gates_BTG, cells_BTH, y_BTH
        )
        return y_BTH, cells_BTH[:, -1].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x_BTE, hidden_BH, cell_BH, from_input_GE, from_hidden_GH, gates, cells, y_BTH = (
            ctx.saved_tensors
        )
        dy_BTH, d_cell_BH = gradients
        (B, T, E), H = x_BTE.shape, hidden_BH.shape[1]
        dy_BTH, panels = dy_BTH.bfloat16().contiguous(), backward_panels(from_hidden_GH)
        d_hidden_BH, d_cell_BH = torch.zeros(B, H), d_cell_BH.clone()
        d_gates_BTG, d_bias_BG = y_BTH.new_empty(B, T, GATES * H), torch.zeros(B, GATES * H)
        by_row = [cell_BH, gates, cells, dy_BTH, d_hidden_BH, d_cell_BH, d_gates_BTG, d_bias_BG]

        def work(rows: slice) -> None:
            sizes = (rows.stop - rows.start, T, E, H)
            kernel.backward(sizes, panels, *(flat(each[rows]) for each in by_row))

        shard_windows(work, B, T, from_hidden_GH.numel())
        before_BTH = torch.cat([hidden_BH[:, None].bfloat16(), y_BTH[:, :-1]], 1)
        d_gates_NG = d_gates_BTG.flatten(0, 1)
        both_NK = torch.cat([x_BTE, before_BTH], 2).flatten(0, 1)
        d_weight_GK = (d_gates_NG.T @ both_NK).float()
        d_bias_G = d_bias_BG.sum(0)
        d_x_BTE = (d_gates_BTG @ from_input_GE.bfloat16()).float()
        d_weights = d_weight_GK[:, :E], d_weight_GK[:, E:], d_bias_G, d_bias_G
        return d_x_BTE, d_hidden_BH, d_cell_BH, *d_weights


def _panels(weight_GK: Tensor) -> Tensor:
    """Flat panels: two gates of U units in each, ordered by pairs of inputs."""
    pairs = weight_GK.view(torch.int32)  # neighboring inputs, moved as one number
    by_unit = pairs.view(2, 2, -1, LANES, weight_GK.shape[1] // 2)
    return by_unit.permute(2, 0, 4, 1, 3).contiguous().view(torch.int16)


def _unit_by_unit(bias_G: Tensor) -> Tensor:
    return bias_G.detach().view(GATES, -1, LANES).transpose(0, 1).contiguous()
