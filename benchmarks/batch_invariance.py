"""What batch invariance costs: rows with the same bits in any batch.

    python benchmarks/batch_invariance.py

Random weights, 65 tokens, one thread; times of the thread, not of the clock, the least of the
rounds. "start-up" is certification itself. "padding" is a step of 33 rows in the certified size
above it against one of just 33 rows. "order" is a step in the fixed order of the exact path against
one by torch's kernels, whose order depends on the number of rows: below 1 the fixed one is faster.
"""

import time
from collections.abc import Callable

import torch

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel
from charlm_server.models.batch_invariance import measure_batch_invariance
from charlm_server.models.loading import batch_sizes

VOCAB_SIZE, MAX_ROWS, ODD_ROWS = 65, 64, 33
ROUNDS, STEPS = 15, 8
ROWS = (1, 16, 64)
MODELS = {
    "rnn 2x256": ("rnn", 256, 2),
    "gru 2x256": ("gru", 256, 2),
    "lstm 2x256": ("lstm", 256, 2),
    "transformer 4x128": ("transformer", 128, 4),
}


def main() -> None:
    torch.set_num_threads(1)
    columns = ["start-up s", "padding", *(f"order, {rows} rows" for rows in ROWS)]
    print("".join([f"{'model':20}", *(f"{column:>16}" for column in columns)]))
    for name, (family, width, num_layers) in MODELS.items():
        config = ModelConfig(
            family=family,
            vocab_size=VOCAB_SIZE,
            hidden_size=width,
            embedding_size=width,
            num_layers=num_layers,
            num_heads=4,
            context_length=256,
        )
        figures = figures_of(build(config).eval())
        print("".join([f"{name:20}", *(f"{figure:16.3f}" for figure in figures)]), flush=True)


def figures_of(model: LanguageModel) -> list[float]:
    sizes = batch_sizes(MAX_ROWS)
    measure_batch_invariance(model, sizes)  # compiles, or reads what was compiled
    start_up_s = seconds_of(lambda: measure_batch_invariance(model, sizes))
    above = min(size for size in sizes if size >= ODD_ROWS)
    padding = ratio(stepping(model, above), stepping(model, ODD_ROWS))
    order = [ratio(stepping(model, rows), forwarding(model, rows)) for rows in ROWS]
    return [start_up_s, padding, *order]


def stepping(model: LanguageModel, num_rows: int) -> Callable[[], None]:
    """Some steps of the exact path."""
    ids_B = torch.ones(num_rows, dtype=torch.int64)

    def steps() -> None:
        state = model.initial_state(num_rows)
        for _ in range(STEPS):
            _, state = model.step(ids_B, state)

    return steps


def forwarding(model: LanguageModel, num_rows: int) -> Callable[[], None]:
    """The same steps by the kernels of training."""
    ids_B1 = torch.ones(num_rows, 1, dtype=torch.int64)

    def steps() -> None:
        state = model.initial_state(num_rows)
        for _ in range(STEPS):
            _, state = model(ids_B1, state)

    return steps


def ratio(ours: Callable[[], None], theirs: Callable[[], None]) -> float:
    """Of the least times, taken in turns."""
    pairs = [(seconds_of(ours), seconds_of(theirs)) for _ in range(ROUNDS)]
    return min(ours_s for ours_s, _ in pairs) / min(theirs_s for _, theirs_s in pairs)


@torch.inference_mode()
def seconds_of(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


if __name__ == "__main__":
    main()
