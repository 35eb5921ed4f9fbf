"""A Transformer block in training: an autograd function around our kernels.

Legend: B batch, L layers, T time, E width, F hidden width of the MLP, N heads, D head width, C ring
slots, P past positions, S = P + T padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from charlm_model.kernels.autograd.packing import backward_panels, flat, panels
from charlm_model.kernels.cpu.simd import LANES
from charlm_model.kernels.cpu_training import transformer_block as kernel
from charlm_model.kernels.cpu_training.attention import padded_to_panels
from charlm_model.kernels.cpu_training.bfloat16 import PANEL_WIDTH
from charlm_model.kernels.threads.openmp_team import run_in_team
from charlm_model.kernels.threads.row_sharding import shard_rows

_OPERATIONS_PER_WEIGHT = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockContext:
    """What a block needs beside its input and weights."""

    num_heads: int
    context_length: int
    epsilon: float
    dropped: int
    """Dropout of the outputs of attention and MLP, in 256ths."""
    random_bytes_2BTE: tuple[Tensor, Tensor]
    layer: int
    num_past: int
    rings: tuple[Tensor, Tensor]
    """Keys and values of all layers (B, L, C / lanes, N, D, lanes) before the window."""
    rings_after: tuple[Tensor, Tensor]
    """Copies of `rings`, which take the keys and values of the window."""
    position_B: Tensor
    rotation: tuple[Tensor, Tensor]


def supports_sizes(width: int, num_heads: int) -> bool:
    """Whether the kernels support these sizes: whole panels, half a head at least one vector."""
    head_width = width // num_heads
    return width % PANEL_WIDTH == 0 and head_width % LANES == 0 and head_width >= 2 * LANES


def block(x_BTE: Tensor, weights: tuple[Tensor, ...], block_context: BlockContext) -> Tensor:
    """The residual stream after the block.

    `weights` are qkv, attention_out, up and down. No gradient flows from later windows through keys
    and values.
    """
    after_BTE: Tensor = _BlockFunction.apply(x_BTE, block_context, *weights)  # type: ignore[no-untyped-call]
    return after_BTE


class _BlockFunction(torch.autograd.Function):
    """Products in bfloat16 with sums in float32; norms, softmax and the stream in float32."""

    @staticmethod
    def forward(ctx: Any, x_BTE: Tensor, block_context: BlockContext, *weights: Tensor) -> Any:
        B, T, E = x_BTE.shape
        N, P = block_context.num_heads, block_context.num_past
        x_BTE = x_BTE.contiguous()
        packed = tuple(map(panels, weights))
        F, S = weights[2].shape[0], padded_to_panels(P + T)
        half, like = torch.bfloat16, x_BTE.new_empty
        saved = kernel.SavedActivations(
            normed=like(B, T, E, dtype=half),
            qkv=like(B, T, 3 * E),
            attn_weights=x_BTE.new_zeros(B, N, T, S, dtype=half),
            heads=like(B, T, E, dtype=half),
            middle=like(B, T, E),
            middle_normed=like(B, T, E, dtype=half),
            relu=like(B, T, F, dtype=half),
            squared=like(B, T, F, dtype=half),
        )
        out = like(B, T, E)
        given = packed, flat(x_BTE), _random(block_context), _past(block_context)
        written = (
            kernel.SavedActivations(*map(flat, saved)),
            *map(flat, block_context.rings_after),
            flat(out),
        )

        def work(rows: slice) -> None:
            kernel.forward(_sizes(block_context, rows, T, E), *given, *written)

        shard_rows(work, B, _operations_per_row(weights, T), tile_rows=1, call=run_in_team)
        ctx.block_context = block_context
        ctx.save_for_backward(x_BTE, *weights, *saved)
        return out

    @staticmethod
    def backward(ctx: Any, d_out_BTE: Tensor) -> Any:
        x_BTE, *weights = ctx.saved_tensors[:5]
        block_context, saved = ctx.block_context, kernel.SavedActivations(*ctx.saved_tensors[5:])
        B, T, E = x_BTE.shape
        d_out_BTE = d_out_BTE.contiguous()
        packed = tuple(map(backward_panels, weights))
        widths = [weight.shape[0] for weight in weights]
        gradients = [x_BTE.new_empty(B, T, width, dtype=torch.bfloat16) for width in widths]
        d_x_BTE = torch.empty_like(x_BTE)
        given = (
            packed,
            flat(x_BTE),
            _random(block_context),
            _past(block_context),
            kernel.SavedActivations(*map(flat, saved)),
        )
        written = flat(d_x_BTE), kernel.Gradients(*map(flat, gradients))

        def work(rows: slice) -> None:
            kernel.backward(_sizes(block_context, rows, T, E), *given, flat(d_out_BTE), *written)

        shard_rows(work, B, _operations_per_row(weights, T), tile_rows=1, call=run_in_team)
        inputs = saved.normed, saved.heads, saved.middle_normed, saved.squared
        d_weights = [
            (_flat_rows(gradient).T @ _flat_rows(given)).float()
            for gradient, given in zip(gradients, inputs, strict=True)
        ]
        return d_x_BTE, None, *d_weights


def _operations_per_row(weights: Sequence[Tensor], length: int) -> int:
    return _OPERATIONS_PER_WEIGHT * length * sum(weight.numel() for weight in weights)


def _flat_rows(tensor: Any) -> Tensor:
    joined: Tensor = tensor.flatten(0, 1)
    return joined


def _sizes(block_context: BlockContext, rows: slice, T: int, E: int) -> kernel.Sizes:
    return kernel.Sizes(
        first_row=rows.start,
        end_row=rows.stop,
        length=T,
        width=E,
        num_heads=block_context.num_heads,
        layer=block_context.layer,
        num_layers=block_context.rings[0].shape[1],
        num_slots=block_context.rings[0].shape[2] * LANES,
        num_past=block_context.num_past,
        context_length=block_context.context_length,
        dropped=block_context.dropped,
        epsilon=np.float32(block_context.epsilon),
    )


def _random(block_context: BlockContext) -> Any:
    return tuple(map(flat, block_context.random_bytes_2BTE))


def _past(block_context: BlockContext) -> kernel.PastWindow:
    return kernel.PastWindow(
        *map(flat, (*block_context.rings, block_context.position_B, *block_context.rotation))
    )
