"""Weights in the layout of the GPU kernels: inputs by outputs, padded with zeros.

Legend: K inputs, N outputs, V vocabulary, E embedding, H hidden, G gates of a unit.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm_model.kernels.triton.matmul import multiply
from charlm_model.kernels.triton.tiling import Tiling, padded, power_of_two
from charlm_model.layers.embedding import TokenEmbedding


@dataclass(frozen=True, slots=True)
class GpuEmbedding:
    """All tables of an embedding, stacked: tokens, earlier tokens, pairs."""

    rows: Tensor
    vocab_size: int
    width: int
    kernel_size: int
    pair_rows: int
    num_recent: int

    @property
    def padded_width(self) -> int:
        return padded(self.width)

    @property
    def block(self) -> int:
        """Columns that a program loads: the padded width, rounded up to a power of two."""
        return power_of_two(self.padded_width)


@dataclass(frozen=True, kw_only=True, slots=True)
class MatmulOptions:
    """What a product does before and after; see `multiply` in `kernels.triton.matmul`."""

    epsilon: float = 0.0
    adds: bool = False
    is_squared: bool = False


@dataclass(frozen=True, slots=True)
class GpuLinear:
    """A linear layer from K inputs to N outputs, both padded."""

    weight_KN: Tensor
    bias_N: Tensor
    size: int  # of the inputs without padding
    has_bias: bool

    @property
    def num_inputs(self) -> int:
        return self.weight_KN.shape[0]

    @property
    def num_outputs(self) -> int:
        return self.weight_KN.shape[1]

    def multiply(
        self, rows: Tensor, outputs: Tensor, num_rows: int, tiling: Tiling, options: MatmulOptions
    ) -> None:
        """Launch `kernels.triton.matmul.multiply` for the first rows of a tensor."""
        tile = tiling.of(num_rows)
        multiply[(num_rows // tile.rows, self.num_outputs // tile.columns)](
            rows, self.weight_KN, self.bias_N, outputs,
            STRIDE=rows.stride(-2),
            K=self.num_inputs,
            WIDTH=self.num_outputs,
            SIZE=self.size,
            EPSILON=options.epsilon,
            ADDS=options.adds,
            HAS_BIAS=self.has_bias,
            IS_SQUARED=options.is_squared,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            DEPTH=tile.depth,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
        )  # fmt: skip


def gpu_embedding(embedding: TokenEmbedding, device: torch.device) -> GpuEmbedding:
    rows = [embedding.weight]
    if embedding.kernel_size > 1:
        rows.append(embedding.earlier)
    if embedding.pair_rows:
        rows.append(embedding.pairs)
    vocab_size, width = embedding.weight.shape
    return GpuEmbedding(
        rows=torch.cat([each.detach().float() for each in rows]).to(device),
        vocab_size=vocab_size,
        width=width,
        kernel_size=embedding.kernel_size,
        pair_rows=embedding.pair_rows,
        num_recent=embedding.num_recent,
    )


def gpu_linear(linear: nn.Linear, device: torch.device) -> GpuLinear:
    weight_KN = _padded(linear.weight.detach().float().T)
    bias_N = torch.zeros(weight_KN.shape[1])
    if linear.bias is not None:
        bias_N[: linear.out_features] = linear.bias.detach().float()
    return GpuLinear(
        weight_KN.contiguous().to(device),
        bias_N.to(device),
        size=linear.in_features,
        has_bias=linear.bias is not None,
    )


def side_by_side(gates: list[Tensor]) -> Tensor:
    """Weights (H, K) or biases (H) of all gates, with the columns of a unit adjacent; padded."""
    width = padded(len(gates[0]))
    rows = [F.pad(gate.flatten(1) if gate.dim() > 1 else gate[:, None],
                  (0, 0, 0, width - len(gate))) for gate in gates]  # fmt: skip
    columns_KHG = torch.stack(rows, dim=-1).transpose(0, 1)
    columns_KN = columns_KHG.flatten(1)
    return columns_KN[0] if gates[0].dim() == 1 else _padded(columns_KN)


def _padded(weight_KN: Tensor) -> Tensor:
    K, N = weight_KN.shape
    return F.pad(weight_KN, (0, padded(N) - N, 0, padded(K) - K))
