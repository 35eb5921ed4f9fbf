"""A causal Transformer that attends through a sliding window kept in a ring.

Legend: B batch, T time, V vocabulary, E embedding, L layers, N heads, D head width, C ring slots,
S keys attended over.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm_model.config import ModelConfig
from charlm_model.dropout import dropout
from charlm_model.embedding import TokenEmbedding
from charlm_model.errors import InvalidConfig
from charlm_model.exact import PackedLinear
from charlm_model.language_model import LanguageModel
from charlm_model.precision import half_products
from charlm_model.state import State

# The exact path takes at most this many tokens at a time; the ring has as many slots to spare.
CHUNK_LENGTH = 64
# Attention products are bit-equal for any number of queries that is a multiple of this.
_QUERY_MULTIPLE = 8
_ROPE_BASE = 10_000.0
_NORM_EPSILON = 1e-6
_HIDDEN_FACTOR = 4


class Block(nn.Module):
    """One layer's weights: x + attention(norm(x)), then x + MLP(norm(x)).

    No biases; output projections start at zero, so that a fresh layer changes nothing.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, _HIDDEN_FACTOR * width, bias=False)
        self.down = nn.Linear(_HIDDEN_FACTOR * width, width, bias=False)
        nn.init.zeros_(self.attention_out.weight)
        nn.init.zeros_(self.down.weight)

    def mix(self, heads_BTE: Tensor) -> Tensor:
        """What the heads' answers add to the stream."""
        added: Tensor = self.attention_out(heads_BTE)
        return added

    def think(self, x_BTE: Tensor) -> Tensor:
        """What the MLP adds to the stream."""
        added: Tensor = self.down(self.up(_norm(x_BTE)).relu().square())
        return added


@dataclass(frozen=True, slots=True)
class _ExactBlock:
    qkv: PackedLinear
    attention_out: PackedLinear
    up: PackedLinear
    down: PackedLinear


class Transformer(LanguageModel):
    """Pre-norm blocks with rotary positions, normalized queries and keys and squared ReLU.

    Position t attends to the last `context_length` positions, itself included, so a text may be of
    any length and the state never grows. A position holds its token and, with a `kernel_size`, the
    few before it: attention need not spend heads on neighbors.

    Source: Vaswani et al. (2017); RoPE, Su et al. (2021); RMSNorm, Zhang & Sennrich (2019);
    squared ReLU, So et al. (2021); query-key norm, Henry et al. (2020); carried keys and values,
    Dai et al. (2019).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        width, heads = config.hidden_size, config.num_heads
        # Reductions over a head are bit-equal for any number of rows at multiples of 4.
        if width % (4 * heads):
            raise InvalidConfig(
                f"hidden_size is {width}, but must be a multiple of 4 * num_heads = {4 * heads}."
            )
        self._exact: list[_ExactBlock] | None = None
        self._exact_head: PackedLinear | None = None
        self._num_slots = config.context_length + CHUNK_LENGTH
        self.embedding = TokenEmbedding(
            config.vocab_size, width, kernel_size=config.kernel_size, pair_rows=config.pair_rows
        )
        self.embedding.initialize(std=0.5)
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.num_layers))
        self.head = nn.Linear(width, config.vocab_size, bias=False)

    def initial_state(self, batch_size: int) -> State:
        config = self.config
        head_width = config.hidden_size // config.num_heads
        ring = batch_size, config.num_layers, config.num_heads, self._num_slots, head_width
        return State(
            {
                "keys": torch.zeros(ring),
                "values": torch.zeros(ring),
                "position": torch.zeros(batch_size, dtype=torch.long),
                **self.embedding.no_recent(batch_size),
            }
        )

    def train(self, mode: bool = True) -> "Transformer":
        self._exact = None  # the weights may change before the exact path is next asked
        super().train(mode)
        return self

    def forward(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        length = ids_BT.shape[1]
        position_B = state["position"]
        rotation = self._rotation(position_B, length)
        past_slots_BS, visible_BTS = self._window(position_B, length)
        recent_BK = state.tensors.get("recent")
        x_BTE = self._drop(_norm(self.embedding(ids_BT, recent_BK)))
        new_keys, new_values = [], []
        for layer, block in enumerate(self._layers):
            with half_products(self.training):
                qkv_BTE = F.linear(_norm(x_BTE), block.qkv.weight)
            q, k, v = self._heads(qkv_BTE.float(), rotation)
            keys_BNSD = torch.cat([_slots(state["keys"][:, layer], past_slots_BS), k], 2)
            values_BNSD = torch.cat([_slots(state["values"][:, layer], past_slots_BS), v], 2)
            mixed_BNTD = F.scaled_dot_product_attention(
                q, keys_BNSD, values_BNSD, attn_mask=visible_BTS[:, None]
            )
            with half_products(self.training):
                x_BTE = x_BTE + self._drop(block.mix(_join(mixed_BNTD)))
                x_BTE = x_BTE + self._drop(block.think(x_BTE))
            new_keys.append(k)
            new_values.append(v)
        ring = self._remember(state, torch.stack(new_keys, 1), torch.stack(new_values, 1))
        after = State({**ring, **self.embedding.remember(ids_BT, recent_BK)})
        return self.head(_norm(x_BTE)), after

    @torch.inference_mode()
    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        chunks = []
        for ids_chunk in ids_BT.split(CHUNK_LENGTH, dim=1):
            logits_BTV, state = self._advance_chunk(ids_chunk, state)
            chunks.append(logits_BTV)
        return torch.cat(chunks, 1), state

    def _advance_chunk(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """At most CHUNK_LENGTH tokens: all go into the ring, then each looks at every slot.

        Masked slots add exact zeros, so a token's result does not depend on its chunk.
        """
        length = ids_BT.shape[1]
        position_B = state["position"]
        rotation = self._rotation(position_B, length)
        rows = torch.arange(len(ids_BT))[:, None]
        slots_BT = (position_B[:, None] + torch.arange(length)) % self._num_slots
        hidden_BTC = ~self._visible_slots(position_B, length)
        recent_BK = state.tensors.get("recent")
        x_BTE = _norm(self.embedding(ids_BT, recent_BK))
        for layer, block in enumerate(self._exact_blocks()):
            q, k, v = self._heads(block.qkv(_norm(x_BTE)), rotation)
            keys_BNCD, values_BNCD = state["keys"][:, layer], state["values"][:, layer]
            keys_BNCD[rows, :, slots_BT] = k.transpose(1, 2)
            values_BNCD[rows, :, slots_BT] = v.transpose(1, 2)
            mixed_BNTD = _exact_attention(q, keys_BNCD, values_BNCD, hidden_BTC)
            x_BTE = x_BTE + block.attention_out(_join(mixed_BNTD))
            x_BTE = x_BTE + block.down(block.up(_norm(x_BTE)).relu().square())
        assert self._exact_head is not None
        logits_BTV = self._exact_head(_norm(x_BTE))
        recent = self.embedding.remember(ids_BT, recent_BK)
        return logits_BTV, State({**state.tensors, "position": position_B + length, **recent})

    @property
    def _layers(self) -> list[Block]:
        return [cast(Block, block) for block in self.blocks]

    def _exact_blocks(self) -> list[_ExactBlock]:
        if self._exact is None:
            self._exact = [
                _ExactBlock(
                    qkv=PackedLinear(block.qkv.weight),
                    attention_out=PackedLinear(block.attention_out.weight),
                    up=PackedLinear(block.up.weight),
                    down=PackedLinear(block.down.weight),
                )
                for block in self._layers
            ]
            self._exact_head = PackedLinear(self.head.weight)
        return self._exact

    def _heads(self, qkv_BTE: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Queries, keys and values (B, N, T, D), the first two normalized and rotated."""
        B, T, _ = qkv_BTE.shape
        q, k, v = qkv_BTE.view(B, T, 3, self.config.num_heads, -1).permute(2, 0, 3, 1, 4)
        return _rotate(_norm(q), rotation), _rotate(_norm(k), rotation), v

    def _rotation(self, position_B: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines (B, 1, T, D/2); angles in float64, exact for any length of text."""
        half = self.config.hidden_size // self.config.num_heads // 2
        frequencies = _ROPE_BASE ** -(torch.arange(half, dtype=torch.float64) / half)
        positions_BT = position_B[:, None] + torch.arange(length)
        angles = positions_BT[:, None, :, None] * frequencies
        return angles.cos().float(), angles.sin().float()

    def _window(self, position_B: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Slots of the cached keys by position (B, S), and who sees whom (B, T, S + T)."""
        num_past = min(int(position_B.max()), self.config.context_length - 1)
        past_BS = position_B[:, None] - num_past + torch.arange(num_past)
        now_BT = position_B[:, None] + torch.arange(length)
        keys_BS = torch.cat([past_BS, now_BT], 1)[:, None]
        age_BTS = now_BT[:, :, None] - keys_BS
        visible_BTS = (age_BTS >= 0) & (age_BTS < self.config.context_length) & (keys_BS >= 0)
        return past_BS % self._num_slots, visible_BTS

    def _visible_slots(self, position_B: Tensor, length: int) -> Tensor:
        """Which ring slots each new token attends to, once all of them are written (B, T, C)."""
        last_B1 = (position_B + length - 1)[:, None]
        held_BC = last_B1 - (last_B1 - torch.arange(self._num_slots)) % self._num_slots
        age_BTC = (position_B[:, None] + torch.arange(length))[:, :, None] - held_BC[:, None]
        return (age_BTC >= 0) & (age_BTC < self.config.context_length) & (held_BC[:, None] >= 0)

    def _remember(self, state: State, keys: Tensor, values: Tensor) -> dict[str, Tensor]:
        """The ring with the last of the new keys and values (B, L, N, T, D) written into it."""
        position_B, length = state["position"], keys.shape[3]
        kept = min(length, self._num_slots)
        slots_BT = (position_B[:, None] + torch.arange(length - kept, length)) % self._num_slots
        index = slots_BT[:, None, None, :, None].expand_as(keys[:, :, :, -kept:])
        return {
            "keys": state["keys"].scatter(3, index, keys[:, :, :, -kept:]),
            "values": state["values"].scatter(3, index, values[:, :, :, -kept:]),
            "position": position_B + length,
        }

    def _drop(self, x_BTE: Tensor) -> Tensor:
        return dropout(x_BTE, self.config.dropout, self.training)


def _exact_attention(
    q_BNTD: Tensor, keys_BNCD: Tensor, values_BNCD: Tensor, hidden_BTC: Tensor
) -> Tensor:
    """Softmax attention over every slot, the number of queries padded to a multiple of 8."""
    length, width = q_BNTD.shape[2:]
    padding = -length % _QUERY_MULTIPLE
    q_BNTD = F.pad(q_BNTD, (0, 0, 0, padding))
    hidden_BTC = F.pad(hidden_BTC, (0, 0, 0, padding))
    scores_BNTC = q_BNTD @ keys_BNCD.transpose(2, 3) * width**-0.5
    weights_BNTC = scores_BNTC.masked_fill(hidden_BTC[:, None], float("-inf")).softmax(-1)
    mixed_BNTD: Tensor = weights_BNTC @ values_BNCD
    return mixed_BNTD[:, :, :length]


def _norm(x: Tensor) -> Tensor:
    """RMSNorm without a learned scale."""
    scale: Tensor = (x.square().mean(-1, keepdim=True) + _NORM_EPSILON).rsqrt()
    return x * scale


def _rotate(x_BNTD: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rotation
    a, b = x_BNTD.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], -1)


def _slots(ring_BNCD: Tensor, slots_BS: Tensor) -> Tensor:
    B, N, _, D = ring_BNCD.shape
    taken: Tensor = ring_BNCD.gather(2, slots_BS[:, None, :, None].expand(B, N, -1, D))
    return taken


def _join(heads_BNTD: Tensor) -> Tensor:
    return heads_BNTD.transpose(1, 2).flatten(2)
