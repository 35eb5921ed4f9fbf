"""How strongly the last loss depends on each token vector before it: ||dl_T / dx_t||.

The same measurement for every family that learns by gradients. B batch, T time, E embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from charlm_model.language_model import LanguageModel


def input_gradients(model: LanguageModel, ids_BT: Tensor) -> list[float]:
    """||dl_T/dx_(T-k)|| for k = 0 to T - 1, over its value at k = 0.

    The root of the mean square over the rows. l_T is the surprisal of the last token, x_t the
    vector of token t, and x_T the last one that is read.
    """
    model.eval()
    read_BT, last_B = ids_BT[:, :-1], ids_BT[:, -1]
    vectors: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output_BTE: Tensor) -> None:
        output_BTE.retain_grad()
        vectors.append(output_BTE)

    embedding = model.get_submodule("embedding")
    handle = embedding.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits_BTV, _ = model(read_BT, model.initial_state(len(read_BT)))
            cross_entropy(logits_BTV[:, -1], last_B, reduction="sum").backward()
    finally:
        handle.remove()
        model.zero_grad(set_to_none=True)
    (vectors_BTE,) = vectors
    assert vectors_BTE.grad is not None
    squares_T = vectors_BTE.grad.double().square().sum(-1).mean(0).flip(0)
    norms: list[float] = (squares_T / squares_T[0]).sqrt().tolist()
    return norms
