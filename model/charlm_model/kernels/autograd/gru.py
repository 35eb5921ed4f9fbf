"""One layer of a GRU in training: an autograd function around our kernels.

Legend: B batch, T time, E inputs, H hidden, S the kernels' four sums times H.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from charlm_model.kernels.autograd.packing import backward_panels, flat, panels, shard_windows
from charlm_model.kernels.cpu_training import gru as kernel


def gru_layer(x_BTE: Tensor, hidden_BH: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Hidden states of all steps (bfloat16) and the last one (float32).

    `weights` are those of one layer in torch's order: input, hidden, and a bias for each.
    """
    y_BTH, last_hidden_BH = _LayerFunction.apply(x_BTE, hidden_BH, *weights)  # type: ignore[no-untyped-call]
    return y_BTH, last_hidden_BH


class _LayerFunction(torch.autograd.Function):
    """Products in bfloat16 with sums in float32; gates and states in float32."""

    @staticmethod
    def forward(ctx: Any, x_BTE: Tensor, hidden_BH: Tensor, *weights: Tensor) -> Any:
        from_input, from_hidden, bias, hidden_bias = weights
        (B, T, E), H = x_BTE.shape, hidden_BH.shape[1]
        x_BTE = x_BTE.bfloat16().contiguous()
        packed = panels(_new_gate_first(from_input)), panels(from_hidden)
        bias_S = torch.cat([_new_gate_first(bias), hidden_bias[2 * H :]])
        bias_S[H : 3 * H] += hidden_bias[: 2 * H]
        last_BH = hidden_BH.detach().clone(memory_format=torch.contiguous_format)
        sums_BTS, y_BTH = torch.empty(B, T, kernel.SUMS * H), x_BTE.new_empty(B, T, H)

        def work(rows: slice) -> None:
            x, *others = (flat(each[rows]) for each in (x_BTE, last_BH, sums_BTS, y_BTH))
            kernel.forward((rows.stop - rows.start, T, E, H), x, *packed, flat(bias_S), *others)

        shard_windows(work, B, T, from_input.numel() + from_hidden.numel())
        ctx.save_for_backward(x_BTE, hidden_BH, from_input, from_hidden, sums_BTS, y_BTH)
        return y_BTH, last_BH

    @staticmethod
    def backward(ctx: Any, dy_BTH: Tensor, d_last_BH: Tensor) -> Any:
        x_BTE, hidden_BH, from_input, from_hidden, sums_BTS, y_BTH = ctx.saved_tensors
        (B, T, E), H = x_BTE.shape, hidden_BH.shape[1]
        dy_BTH, packed = dy_BTH.bfloat16().contiguous(), backward_panels(from_hidden)
        d_hidden_BH = d_last_BH.clone(memory_format=torch.contiguous_format)
        S = kernel.SUMS * H
        d_sums_BTS, d_bias_BS = y_BTH.new_empty(B, T, S), torch.zeros(B, S)
        first_BH = hidden_BH.contiguous()
        by_row = [first_BH, sums_BTS, y_BTH, dy_BTH, d_hidden_BH, d_sums_BTS, d_bias_BS]

        def work(rows: slice) -> None:
            sizes = (rows.stop - rows.start, T, E, H)
            kernel.backward(sizes, packed, *(flat(each[rows]) for each in by_row))

        shard_windows(work, B, T, from_hidden.numel())
        before_BTH = torch.cat([hidden_BH[:, None].bfloat16(), y_BTH[:, :-1]], 1)
        d_sums_NS, d_bias_S = d_sums_BTS.flatten(0, 1), d_bias_BS.sum(0)
        of_input, of_hidden = slice(0, 3 * H), slice(H, 4 * H)
        d_from_input = (d_sums_NS[:, of_input].T @ x_BTE.flatten(0, 1)).float()
        d_from_hidden = (d_sums_NS[:, of_hidden].T @ before_BTH.flatten(0, 1)).float()
        d_x_BTE = (d_sums_BTS[..., of_input] @ _new_gate_first(from_input).bfloat16()).float()
        d_weights = _new_gate_last(d_from_input), d_from_hidden
        return (
            d_x_BTE,
            d_hidden_BH,
            *d_weights,
            _new_gate_last(d_bias_S[of_input]),
            d_bias_S[of_hidden],
        )


def _new_gate_first(gates: Tensor) -> Tensor:
    """Reorder torch's gates (reset, update, candidate) as the kernel does: candidate first."""
    return gates.detach().roll(len(gates) // 3, 0)


def _new_gate_last(gates: Tensor) -> Tensor:
    return gates.roll(-(len(gates) // 3), 0)
