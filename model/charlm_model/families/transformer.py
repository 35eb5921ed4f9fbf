"""A causal Transformer with sliding-window attention over a KV cache that is a ring buffer.

A layer's ring is stored in blocks of slots (C / lanes, N, D, lanes), as `kernels.cpu.attention`
reads it.

Legend: B batch, T time, V vocabulary, E embedding, L layers, N heads, D head width, C ring slots,
S keys attended over.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm_model import exact_math
from charlm_model.config import ModelConfig
from charlm_model.errors import InvalidConfig
from charlm_model.families.kernel_model import KernelModel
from charlm_model.kernels.autograd import transformer_block
from charlm_model.kernels.cpu import transformer as kernel
from charlm_model.kernels.cpu.simd import LANES
from charlm_model.kernels.cpu.weights import lanes_of
from charlm_model.layers.dropout import dropout, dropped_levels, random_bytes
from charlm_model.layers.embedding import TokenEmbedding
from charlm_model.layers.mixed_precision import bfloat16_matmuls, has_bfloat16_kernels
from charlm_model.state import State
from charlm_model.tensor_memory import copy, fill_zeros, zeros

_ROPE_BASE, _LOG_ROPE_BASE = 10_000.0, 9.210340371976184
NORM_EPSILON = 1e-6
_HIDDEN_FACTOR = 4
Rotation = tuple[Tensor, Tensor]
Stream = tuple[Tensor, dict[str, Tensor]]


class TransformerBlock(nn.Module):
    """One layer's weights: x + attention(norm(x)), then x + MLP(norm(x)).

    No biases; output projections are initialized to 0, so that a new layer is the identity.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, _HIDDEN_FACTOR * width, bias=False)
        self.down = nn.Linear(_HIDDEN_FACTOR * width, width, bias=False)
        nn.init.zeros_(self.attention_out.weight)
        nn.init.zeros_(self.down.weight)

    @property
    def weights(self) -> tuple[Tensor, ...]:
        return self.qkv.weight, self.attention_out.weight, self.up.weight, self.down.weight

    def project(self, heads_BTE: Tensor) -> Tensor:
        """The output projection of attention."""
        added: Tensor = self.attention_out(heads_BTE)
        return added

    def mlp(self, x_BTE: Tensor) -> Tensor:
        """The MLP with its norm, as added to the residual stream."""
        added: Tensor = self.down(self.up(_norm(x_BTE)).relu().square())
        return added


class Transformer(KernelModel):
    """Pre-norm blocks with rotary positions, normalized queries and keys and squared ReLU.

    Position t attends to the last `context_length` positions, itself included, so a text may have
    any length and the state has a fixed size. With a `kernel_size` the input of a position includes
    the tokens just before it, so that attention need not spend heads on neighbors.

    Source: Vaswani et al. (2017); RoPE, Su et al. (2021); RMSNorm, Zhang & Sennrich (2019);
    squared ReLU, So et al. (2021); query-key norm, Henry et al. (2020); carried keys and values,
    Dai et al. (2019).
    """

    _kernel = kernel
    frequencies: Tensor
    """Radians per token, for every pair of a head's numbers (D/2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        width, heads = config.hidden_size, config.num_heads
        # The kernels process four numbers of a head at a time.
        if width % (4 * heads):
            raise InvalidConfig(
                f"hidden_size is {width}; it must be a multiple of 4 * num_heads = {4 * heads}."
            )
        self._num_slots = lanes_of(config.context_length)
        self.embedding = TokenEmbedding(
            config.vocab_size, width, kernel_size=config.kernel_size, pair_rows=config.pair_rows
        )
        self.embedding.initialize(std=0.5)
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(config.num_layers))
        self.head = nn.Linear(width, config.vocab_size, bias=False)
        half = width // heads // 2
        frequencies = exact_math.exp(np.arange(half, dtype=np.float64) * (-_LOG_ROPE_BASE / half))
        self.register_buffer("frequencies", torch.from_numpy(frequencies), persistent=False)

    def initial_state(self, batch_size: int) -> State:
        config = self.config
        head_width = config.hidden_size // config.num_heads
        block = config.num_heads, head_width, LANES
        ring = batch_size, config.num_layers, self._num_slots // LANES, *block
        return State(
            {
                "keys": zeros(ring, torch.bfloat16, self.device),
                "values": zeros(ring, torch.bfloat16, self.device),
                "position": torch.zeros(batch_size, dtype=torch.long, device=self.device),
                **self.embedding.initial_recent(batch_size),
            }
        )

    def put_row(self, state: State, row: int, other: State) -> None:
        """Copies only slots that either of the two has filled: all others are zero."""
        num_before, num_after = (
            lanes_of(min(int(position), self._num_slots)) // LANES
            for position in (state["position"][row], other["position"][0])
        )
        for name in ("keys", "values"):
            ring, filled = state[name][row], other[name][0, :, :num_after]
            copy(ring[:, :num_after], filled)
            fill_zeros(ring[:, num_after:num_before])
        for name in state.tensors.keys() - {"keys", "values"}:
            copy(state[name][row], other[name][0])

    def forward(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        length = ids_BT.shape[1]
        rotation = self._rotation(state["position"], length)
        recent_BK = state.tensors.get("recent")
        x_BTE = self._drop(_norm(self.embedding(ids_BT, recent_BK)))
        run = self._run_kernels if self._uses_kernels() else self._run_torch
        x_BTE, carried = run(x_BTE, state, rotation)
        after = State({**carried, **self.embedding.recent_after(ids_BT, recent_BK)})
        with bfloat16_matmuls(self.training, self.device):
            logits_BTV = self.head(_norm(x_BTE))
        return logits_BTV.float(), after

    def _run_torch(self, x_BTE: Tensor, state: State, rotation: Rotation) -> Stream:
        past_slots_BS, visible_BTS = self._window(state["position"], x_BTE.shape[1])
        new_keys, new_values = [], []
        for layer, block in enumerate(self.layers):
            with bfloat16_matmuls(self.training, self.device):
                qkv_BTE = F.linear(_norm(x_BTE), block.qkv.weight)
            q, k, v = self._heads(qkv_BTE.float(), rotation)
            if not self.training:
                k, v = _rounded_to_bfloat16(k), _rounded_to_bfloat16(v)
            keys_BNSD = torch.cat([_slots(state["keys"][:, layer], past_slots_BS), k], 2)
            values_BNSD = torch.cat([_slots(state["values"][:, layer], past_slots_BS), v], 2)
            if self.device.type == "cuda" and self.training:  # where bfloat16 is faster
                q, keys_BNSD, values_BNSD = (x.bfloat16() for x in (q, keys_BNSD, values_BNSD))
            mixed_BNTD = F.scaled_dot_product_attention(
                q, keys_BNSD, values_BNSD, attn_mask=visible_BTS[:, None]
            )
            with bfloat16_matmuls(self.training, self.device):
                x_BTE = x_BTE + self._drop(block.project(_join_heads(mixed_BNTD)))
                x_BTE = x_BTE + self._drop(block.mlp(x_BTE))
            new_keys.append(k)
            new_values.append(v)
        carried = self._write_ring(state, torch.stack(new_keys, 1), torch.stack(new_values, 1))
        return x_BTE, carried

    def _uses_kernels(self) -> bool:
        """Whether the training kernels run: they need fast bfloat16 and fitting sizes."""
        width, heads = self.config.hidden_size, self.config.num_heads
        supports_sizes = transformer_block.supports_sizes(width, heads)
        return self.training and supports_sizes and has_bfloat16_kernels(self.device)

    def _run_kernels(self, x_BTE: Tensor, state: State, rotation: Rotation) -> Stream:
        rings = state["keys"], state["values"]
        num_past = lanes_of(self._num_past(state["position"]))  # in whole blocks of slots
        keys, values = (ring.clone(memory_format=torch.contiguous_format) for ring in rings)
        cosine, sine = (each.flatten(1) for each in rotation)
        for layer, block in enumerate(self.layers):
            block_context = transformer_block.BlockContext(
                num_heads=self.config.num_heads,
                context_length=self.config.context_length,
                epsilon=NORM_EPSILON,
                dropped=dropped_levels(self.config.dropout),
                random_bytes_2BTE=(self._dropout_bytes(x_BTE), self._dropout_bytes(x_BTE)),
                layer=layer,
                num_past=num_past,
                rings=rings,
                rings_after=(keys, values),
                position_B=state["position"],
                rotation=(cosine, sine),
            )
            x_BTE = transformer_block.block(x_BTE, block.weights, block_context)
        position_B = state["position"] + x_BTE.shape[1]
        return x_BTE, {"keys": keys, "values": values, "position": position_B}

    def _dropout_bytes(self, x_BTE: Tensor) -> Tensor:
        if dropped_levels(self.config.dropout):
            return random_bytes(x_BTE)
        return torch.empty(x_BTE.shape, dtype=torch.uint8)  # never read

    def _pack(self) -> kernel.PackedTransformer:
        return kernel.pack(
            self.embedding,
            [[each.qkv, each.attention_out, each.up, each.down] for each in self.layers],
            self.head,
            num_heads=self.config.num_heads,
            context_length=self.config.context_length,
            frequencies=self.frequencies.numpy(),
            epsilon=NORM_EPSILON,
        )

    def _carried(self, state: State) -> list[Tensor]:
        return [state["position"], state["keys"].flatten(1), state["values"].flatten(1)]

    def _after(self, carried: list[Tensor], state: State) -> dict[str, Tensor]:
        position_B, keys, values = carried
        shape = state["keys"].shape
        return {
            "position": position_B, "keys": keys.view(shape), "values": values.view(shape),
        }  # fmt: skip

    @property
    def layers(self) -> list[TransformerBlock]:
        return [cast(TransformerBlock, block) for block in self.blocks]

    def _heads(self, qkv_BTE: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Queries, keys and values (B, N, T, D), the first two normalized and rotated."""
        B, T, _ = qkv_BTE.shape
        q, k, v = qkv_BTE.view(B, T, 3, self.config.num_heads, -1).permute(2, 0, 3, 1, 4)
        return _rotate(_norm(q), rotation), _rotate(_norm(k), rotation), v

    def _rotation(self, position_B: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines (B, 1, T, D/2); angles in float64, exact for any length of text."""
        positions_BT = position_B[:, None] + torch.arange(length, device=position_B.device)
        angles = positions_BT[:, None, :, None] * self.frequencies
        return angles.cos().float(), angles.sin().float()

    def _window(self, position_B: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Slots of the cached keys by position (B, S), and the attention mask (B, T, S + T)."""
        past_BS = self._past(position_B)
        now_BT = position_B[:, None] + torch.arange(length, device=position_B.device)
        keys_BS = torch.cat([past_BS, now_BT], 1)[:, None]
        age_BTS = now_BT[:, :, None] - keys_BS
        visible_BTS = (age_BTS >= 0) & (age_BTS < self.config.context_length) & (keys_BS >= 0)
        return past_BS % self._num_slots, visible_BTS

    def _past(self, position_B: Tensor) -> Tensor:
        """Past positions in the window (B, S); some may lie before the start of the text."""
        num_past = self._num_past(position_B)
        return position_B[:, None] - num_past + torch.arange(num_past, device=position_B.device)

    def _num_past(self, position_B: Tensor) -> int:
        most = self.config.context_length - 1
        # Reading a number from another device would synchronize with it.
        return min(int(position_B.max()), most) if position_B.device.type == "cpu" else most

    def _write_ring(self, state: State, keys: Tensor, values: Tensor) -> dict[str, Tensor]:
        """The ring with the last of the new keys and values (B, L, N, T, D) written into it."""
        position_B, length = state["position"], keys.shape[3]
        kept = min(length, self._num_slots)
        offsets_T = torch.arange(length - kept, length, device=position_B.device)
        slots_BT = (position_B[:, None] + offsets_T) % self._num_slots
        return {
            "keys": _with_slots(state["keys"], slots_BT, keys[:, :, :, -kept:]),
            "values": _with_slots(state["values"], slots_BT, values[:, :, :, -kept:]),
            "position": position_B + length,
        }

    def _drop(self, x_BTE: Tensor) -> Tensor:
        return dropout(x_BTE, self.config.dropout, self.training)


def _norm(x: Tensor) -> Tensor:
    """RMSNorm without a learned scale."""
    scale: Tensor = (x.square().mean(-1, keepdim=True) + NORM_EPSILON).rsqrt()
    return x * scale


def _rotate(x_BNTD: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rotation
    a, b = x_BNTD.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], -1)


def _slots(ring: Tensor, slots_BS: Tensor) -> Tensor:
    """The given slots of one layer's ring (B, C / lanes, N, D, lanes) as (B, N, S, D)."""
    B, _, N, D, _ = ring.shape
    taken = ring.flatten(1).gather(1, _places(slots_BS, N * D).flatten(1))
    return taken.float().view(B, -1, N, D).transpose(1, 2)


def _with_slots(ring: Tensor, slots_BS: Tensor, new: Tensor) -> Tensor:
    """The ring of all layers with numbers (B, L, N, S, D) written into the given slots."""
    B, L, _, N, D, _ = ring.shape
    index = _places(slots_BS, N * D).flatten(1)[:, None].expand(B, L, -1)
    new_BLX = new.transpose(2, 3).flatten(2).to(ring.dtype)
    return ring.flatten(2).scatter(2, index, new_BLX).view(ring.shape)


def _rounded_to_bfloat16(x: Tensor) -> Tensor:
    """Round keys and values as the ring does, so that the newest token is treated alike."""
    return x.to(torch.bfloat16).float()


def _places(slots_BS: Tensor, width: int) -> Tensor:
    """Offsets of all heads' numbers of a slot in its layer's ring (B, S, width)."""
    in_block_BS = slots_BS % LANES
    first_BS = (slots_BS - in_block_BS) * width + in_block_BS
    return first_BS[:, :, None] + torch.arange(width, device=slots_BS.device) * LANES


def _join_heads(heads_BNTD: Tensor) -> Tensor:
    return heads_BNTD.transpose(1, 2).flatten(2)
