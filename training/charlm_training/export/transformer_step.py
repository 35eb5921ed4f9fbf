"""One step of the Transformer as a plain graph over a ring of keys and values.

B batch, L layers, N heads, C slots of the ring, D head width, E embedding, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from charlm_model.families.transformer import Transformer, _join_heads, _norm, _rounded_to_bfloat16


class TransformerStep(nn.Module):
    """ids (B,), keys and values (B, L, N, C, D), position (B,) and recent ids (B, K), if any.

    Gives logits (B, V) and the same after the step.

    The ring has as many slots as the window has positions: whatever is in it is attended to.
    """

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model
        self.state_names = tuple(model.initial_state(1).tensors)
        self._num_slots = model.config.context_length

    def forward(self, ids_B: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        keys, values, position_B, *recent = state
        model, slots_C = self.model, torch.arange(self._num_slots)
        is_now_BC = slots_C == (position_B % self._num_slots)[:, None]
        is_empty_BC = slots_C > position_B[:, None]
        rotation = model._rotation(position_B, 1)
        x_B1E = _norm(model.embedding(ids_B[:, None], *recent))
        layers = []
        for layer, block in enumerate(model.layers):
            q, k, v = model._heads(linear(_norm(x_B1E), block.qkv.weight), rotation)
            k, v = _rounded_to_bfloat16(k), _rounded_to_bfloat16(v)
            keys_BNCD = torch.where(is_now_BC[:, None, :, None], k, keys[:, layer])
            values_BNCD = torch.where(is_now_BC[:, None, :, None], v, values[:, layer])
            weights_BN1C = q @ keys_BNCD.mT * q.shape[-1] ** -0.5
            weights_BN1C = weights_BN1C.masked_fill(is_empty_BC[:, None, None], float("-inf"))
            x_B1E = x_B1E + block.project(_join_heads(weights_BN1C.softmax(-1) @ values_BNCD))
            x_B1E = x_B1E + block.mlp(x_B1E)
            layers.append((keys_BNCD, values_BNCD))
        after = [torch.stack(each, 1) for each in zip(*layers, strict=True)]
        remembered = model.embedding.recent_after(ids_B[:, None], *recent) if recent else {}
        return model.head(_norm(x_B1E))[:, 0], *after, position_B + 1, *remembered.values()
