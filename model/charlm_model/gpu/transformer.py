"""The Transformer on a GPU: a layer processes all tokens of a prefill together.

The KV cache stays in the state's own tensors, whose addresses are passed to the kernels.

Legend: B rows, T tokens, E width, N heads, D head width, P pairs of a head's numbers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm_model.families.transformer import NORM_EPSILON, Transformer, TransformerBlock
from charlm_model.gpu.weights import (
    GpuEmbedding,
    GpuLinear,
    MatmulOptions,
    gpu_embedding,
    gpu_linear,
)
from charlm_model.gpu.workspace import GpuWorkspace
from charlm_model.kernels.triton.attention import (
    LANES,
    attend,
    prepare_tokens,
    project_heads,
    write_ring,
)
from charlm_model.kernels.triton.tiling import Tiling, padded, power_of_two
from charlm_model.state import State

_NUMBERS_TOGETHER = 2048  # of keys, processed by a program at a time
_NORMALIZED = MatmulOptions(epsilon=NORM_EPSILON)
_SQUARED = MatmulOptions(epsilon=NORM_EPSILON, is_squared=True)
_RESIDUAL = MatmulOptions(adds=True)


@dataclass(frozen=True, slots=True)
class GpuTransformerLayer:
    """A block's weights; `qkv` has a head's pairs side by side, padded."""

    qkv: Tensor
    attention_out: GpuLinear
    up: GpuLinear
    down: GpuLinear


@dataclass(frozen=True, slots=True)
class GpuTransformerWeights:
    """A model's sizes and weights in the layout of its kernels."""

    width: int
    num_heads: int
    window: int
    num_blocks: int  # of a ring
    embedding: GpuEmbedding
    layers: list[GpuTransformerLayer]
    head: GpuLinear
    frequencies_P: Tensor

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads

    @property
    def num_pairs(self) -> int:
        """Pairs of a head's numbers, padded to a power of two."""
        return power_of_two(self.head_width // 2)


def pack(model: Transformer, device: torch.device) -> GpuTransformerWeights:
    config = model.config
    return GpuTransformerWeights(
        width=config.hidden_size,
        num_heads=config.num_heads,
        window=config.context_length,
        num_blocks=-(-config.context_length // LANES.value),
        embedding=gpu_embedding(model.embedding, device),
        layers=[_layer(block, config.num_heads, device) for block in model.layers],
        head=gpu_linear(model.head, device),
        frequencies_P=model.frequencies.to(device),
    )


def _layer(block: TransformerBlock, num_heads: int, device: torch.device) -> GpuTransformerLayer:
    return GpuTransformerLayer(
        qkv=_pairs_together(block.qkv, num_heads).to(device),
        attention_out=gpu_linear(block.attention_out, device),
        up=gpu_linear(block.up, device),
        down=gpu_linear(block.down, device),
    )


def _pairs_together(qkv: nn.Linear, num_heads: int) -> Tensor:
    """Weights (E, columns) with the two numbers of each rotary pair in adjacent columns."""
    width = qkv.in_features
    half = width // num_heads // 2
    rows = qkv.weight.detach().float().view(3 * num_heads, 2, half, width).transpose(1, 2)
    pairs = F.pad(rows, (0, padded(width) - width, 0, 0, 0, power_of_two(half) - half))
    return pairs.flatten(0, 2).T.contiguous()


class TransformerWorkspace(GpuWorkspace):
    """Activations are ordered token by token, and within a token by row."""

    _head_options = _NORMALIZED

    def __init__(
        self, packed: GpuTransformerWeights, batch_size: int, tiling: Tiling, device: torch.device
    ) -> None:
        super().__init__(packed.embedding, packed.head, batch_size, tiling, device)
        self._packed = packed
        rows = self.num_rows * self.max_tokens
        half = torch.bfloat16
        self._positions_B = self._zeros(self.num_rows, dtype=torch.long)
        self._token_positions = self._zeros(rows, dtype=torch.long)
        self._angles = self._zeros(rows, 2 * packed.num_pairs)
        self._queries = self._zeros(rows, packed.width)
        self._keys = self._zeros(rows, packed.width, dtype=half)
        self._values = self._zeros(rows, packed.width, dtype=half)
        self._attended = self._zeros(rows, padded(packed.width))
        self._up = self._zeros(rows, packed.layers[0].up.num_outputs)
        self._rings = self._zeros(2, dtype=torch.long)
        self._host_rings = self._on_host(self._rings)

    def _load(self, state: State, length: int) -> None:
        rings = state["keys"], state["values"]
        assert all(ring.is_contiguous() and ring.device == self._device for ring in rings)
        self._host_rings.copy_(torch.tensor([ring.data_ptr() for ring in rings]))
        self._rings.copy_(self._host_rings, non_blocking=True)
        self._positions_B[: self.batch_size].copy_(state["position"])

    def _store(self, state: State, length: int, num_tokens: int) -> None:
        state["position"].add_(num_tokens)

    def _enqueue_layers(self, length: int, step: int) -> Tensor:
        num_rows, tiling = self.num_rows * length, self._tiling
        self._enqueue_preparation(length)
        for number, layer in enumerate(self._packed.layers):
            self._enqueue_projection(layer, num_rows)
            self._enqueue_attention(number, length)
            layer.attention_out.multiply(self._attended, self._x, num_rows, tiling, _RESIDUAL)
            layer.up.multiply(self._x, self._up, num_rows, tiling, _SQUARED)
            layer.down.multiply(self._up, self._x, num_rows, tiling, _RESIDUAL)
        return self._x

    def _enqueue_preparation(self, length: int) -> None:
        packed = self._packed
        prepare_tokens[(self.num_rows, length)](
            self._x, self._positions_B, self._token_positions, packed.frequencies_P, self._angles,
            STRIDE=self._x.shape[1],
            SIZE=packed.width,
            EPSILON=NORM_EPSILON,
            DEPTH=32,
            HALF=packed.head_width // 2,
            PAIRS=packed.num_pairs,
            ADVANCES=length == 1,
            num_warps=1,
        )  # fmt: skip

    def _enqueue_projection(self, layer: GpuTransformerLayer, num_rows: int) -> None:
        packed, tile = self._packed, self._tiling.of(num_rows)
        project_heads[(num_rows // tile.rows, 3 * packed.num_heads)](
            self._x, layer.qkv, self._angles, self._queries, self._keys, self._values,
            STRIDE=self._x.shape[1],
            SIZE=packed.width,
            EPSILON=NORM_EPSILON,
            WIDTH=layer.qkv.shape[1],
            HEADS=packed.num_heads,
            HEAD_WIDTH=packed.head_width,
            PAIRS=packed.num_pairs,
            ROWS=tile.rows,
            DEPTH=tile.depth,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
        )  # fmt: skip

    def _enqueue_attention(self, layer: int, length: int) -> None:
        packed = self._packed
        grid = self.batch_size, length, packed.num_heads
        sizes = {
            "LAYERS": len(packed.layers),
            "HEADS": packed.num_heads,
            "WIDTH": packed.head_width,
            "PADDED": power_of_two(packed.head_width),
            "BLOCKS": packed.num_blocks,
        }
        attend[grid](
            self._queries, self._keys, self._values, self._token_positions, self._rings,
            self._attended,
            layer, self.num_rows, int(length == 1),
            STRIDE=self._attended.shape[1],
            WINDOW=packed.window,
            TOGETHER=max(1, _NUMBERS_TOGETHER // LANES.value // power_of_two(packed.head_width)),
            num_warps=4,
            **sizes,
        )  # fmt: skip
        if length > 1:
            write_ring[grid](
                self._keys, self._values, self._token_positions, self._rings,
                layer, self.num_rows, **sizes,
            )  # fmt: skip
