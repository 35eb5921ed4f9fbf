"""Compile every kernel: `python -m charlm_model.compile_kernels`, as the server's image does."""

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
