"""A program for test_tensor_memory: steps many rows in two threads, moves and clones them.

    python lively.py FAMILY

Prints the number of other threads before and after, and the number of our own.
"""

import os
import sys
import threading

import torch

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.sampling.philox import Counters

NUM_ROWS, NUM_STEPS = 600, 2


def num_threads() -> tuple[int, int]:
    """The numbers of other threads and of our own."""
    num_own = sum(thread.name.startswith("rows") for thread in threading.enumerate())
    return len(os.listdir("/proc/self/task")) - num_own, num_own


@torch.inference_mode()
def live(family: str) -> None:
    torch.set_num_threads(1)
    width = {"hidden_size": 64, "embedding_size": 64, "num_heads": 2, "context_length": 1024}
    model = build(ModelConfig(family=family, vocab_size=65, num_layers=2, **width)).eval()
    state, logits_BV = model.initial_state(NUM_ROWS), torch.zeros(NUM_ROWS, 65)
    words_B = torch.zeros(NUM_ROWS, dtype=torch.uint64).numpy()
    counters = Counters(words_B, words_B, words_B)
    one = Counters(*(column_B[:1] for column_B in counters))
    model.sample(logits_BV[:1], model.initial_state(1), one, 1)  # which loads libraries
    num_before, _ = num_threads()
    torch.set_num_threads(2)
    for _ in range(NUM_STEPS):
        _, logits_BV, state = model.sample(logits_BV, state, counters, 2)
    _, long = model.advance(torch.zeros(1, 1000, dtype=torch.long), model.initial_state(1))
    model.put_row(state, 1, long)
    model.put_row(state, 1, model.initial_state(1))
    long.clone()
    print(num_before, *num_threads())


if __name__ == "__main__":
    live(sys.argv[1])
