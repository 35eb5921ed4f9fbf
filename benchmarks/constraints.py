"""What constraints cost: patterns compiled, and decode steps with and without masks.

    python benchmarks/constraints.py

One LSTM of 192 units with random weights, one thread; times are of the thread, not of the clock.
"""

import time

import torch

from charlm_model.config import ModelConfig
from charlm_model.constraints.constraint import Constraint, from_regex
from charlm_model.errors import InvalidConstraint
from charlm_model.families.registry import build
from charlm_model.sampling.params import SamplingParams
from charlm_model.text.vocabulary import ByteVocabulary, CharVocabulary, Vocabulary
from charlm_server.engine.batch import PlacedSequence, RowBatch
from charlm_server.engine.decoding import burst
from charlm_server.engine.generation import Stopping
from charlm_server.engine.output_buffer import OutputBuffer
from charlm_server.engine.sequence import GenerationJob
from charlm_server.engine.token_columns import Returns

PATTERNS = [
    r"\d{4}-\d{2}-\d{2}",
    r"(\w+ ){1,50}",
    "[가-힣]+",
    "(a|b)*a(a|b){12}",
    "(a|b)*a(a|b){20}",
    "(a{50}){50}",
    "((a{100}){100}){100}",
]
VOCABULARIES: list[Vocabulary] = [
    CharVocabulary("".join(map(chr, range(32, 127)))),
    ByteVocabulary(),
]
NUM_STEPS = 200


def main() -> None:
    torch.set_num_threads(1)
    for vocabulary in VOCABULARIES:
        tokens = [vocabulary.token_bytes(token_id) for token_id in range(vocabulary.size)]
        print(f"\n{vocabulary.kind} vocabulary, {vocabulary.size} tokens")
        for pattern in PATTERNS:
            print(f"  {pattern:24} {compiled(pattern, tokens)}")
        constraint = from_regex(r"(\w+ )+", tokens)
        for num_rows in (1, 8, 64):
            free, held = (step_ms(vocabulary.size, num_rows, each) for each in (None, constraint))
            print(f"  {num_rows:2} rows: {free:.3f} ms a step free, {held:.3f} ms constrained")


def compiled(pattern: str, tokens: list[bytes]) -> str:
    started = time.thread_time()
    try:
        result = f"{from_regex(pattern, tokens).num_states} states"
    except InvalidConstraint as error:
        result = f"refused: not {error.allowed}"
    return f"{(time.thread_time() - started) * 1000:6.1f} ms  {result}"


@torch.inference_mode()
def step_ms(vocab_size: int, num_rows: int, constraint: Constraint | None) -> float:
    torch.manual_seed(0)
    model = build(ModelConfig(family="lstm", vocab_size=vocab_size, hidden_size=192)).eval()
    batch = RowBatch(model, [num_rows])
    logits_11V, state = model.advance(torch.tensor([[0]]), model.initial_state(1))
    batch.join(
        [
            PlacedSequence(job(seed, constraint).sequences[0], state, logits_11V[:, -1])
            for seed in range(num_rows)
        ]
    )
    burst(batch, 20)
    started = time.thread_time()
    burst(batch, NUM_STEPS)
    return (time.thread_time() - started) * 1000 / NUM_STEPS


def job(seed: int, constraint: Constraint | None) -> GenerationJob:
    return GenerationJob(
        prompt_ids=[0],
        params=SamplingParams(),
        seed=seed,
        stopping=Stopping(max_new_tokens=100_000, constraint=constraint, ignore_end_of_text=True),
        returns=Returns(),
        num_outputs=1,
        bytes_per_token=24,
        output=OutputBuffer(1 << 20, lambda: None),
    )


if __name__ == "__main__":
    main()
