"""The bits of today, which states, resume tokens and compressed texts of yesterday rely on."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import torch

from charlm_model.kernels.cpu import ARITHMETIC
from charlm_model.language_model import LanguageModel
from charlm_model.sampling.philox import Counters

KNOWN = {
    "rnn": (2, "69c3f73933beee32"),
    "gru": (2, "5f27fdb998f4691b"),
    "lstm": (2, "a9c7bb32674499f6"),
    "transformer": (2, "b3ae8f0a4059d485"),
}


@pytest.mark.parametrize("family", ["rnn", "gru", "lstm", "transformer"])
def test_other_bits_are_another_arithmetic(
    make_model: Callable[..., LanguageModel], family: str
) -> None:
    model = with_known_weights(make_model(family, hidden_size=64, num_layers=2, context_length=70))
    ids_BT = torch.arange(3 * 90).view(3, 90) % 11
    logits_BTV, state = model.advance(ids_BT, model.initial_state(3))
    numbers = np.arange(9, dtype=np.uint64).reshape(3, 3)
    burst, after_BV, _ = model.sample(logits_BTV[:, -1], state, Counters(*numbers), num_steps=20)

    digest = hashlib.sha256()
    for array in (logits_BTV.numpy(), burst.ids_BK, burst.logprobs_BK, after_BV.numpy()):
        digest.update(array.tobytes())
    # Where another is meant, raise ARITHMETIC: nobody goes on from bits that are no more.
    assert (ARITHMETIC, digest.hexdigest()[:16]) == KNOWN[family]


def with_known_weights(model: LanguageModel) -> LanguageModel:
    """Spread evenly over [-0.3, 0.3), the same in every torch."""
    for number, parameter in enumerate(model.parameters()):
        spread = (np.arange(parameter.numel(), dtype=np.uint64) + np.uint64(number)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        values = (spread >> np.uint64(40)).astype(np.float32) * np.float32(0.6 / 2**24)
        parameter.data = torch.from_numpy(values - np.float32(0.3)).view_as(parameter)
    return model
