"""Compile every CPU kernel ahead of use: `python -m charlm_model.compile_kernels`.

The Dockerfile runs it, so that a server starts without compiling.
"""

import torch

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.sampling.philox import Counters


def main() -> None:
    for family in ("rnn", "gru", "lstm", "transformer"):
        config = ModelConfig(family=family, vocab_size=3, hidden_size=16, num_heads=2)
        model = build(config).eval()
        counters = Counters(*torch.zeros(3, 1, dtype=torch.uint64).numpy())
        logits_BTV, state = model.advance(
            torch.zeros(1, 1, dtype=torch.long), model.initial_state(1)
        )
        model.sample(logits_BTV[:, -1], state, counters, num_steps=1)


if __name__ == "__main__":
    main()
