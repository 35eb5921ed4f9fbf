"""What scoring a long text costs: forward, the exact path, the engine, and a server's stream.

    python benchmarks/scoring.py [--characters 1000000] [--rounds 1] [--model NAME]

Random weights, 65 tokens, one thread. A roofline is the products of `forward` alone: every weight
matrix times 4,096 rows. There are two, by torch's default product and by oneDNN's packed one; both
are taken anew beside every figure. "row by row" are the products that one text asks for, by torch:
those with a recurrent state have one row each. Beyond a roofline is possible: the exact path looks
the first layer's products up with the embeddings.
Times are of the thread, not of the clock, but for the stream, whose server is another process.
"""

import argparse
import json
import string
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from products import NUM_STEPS, Clock, Products, Work, seconds_of
from served import NAME, served

from charlm_client.sync.client import SyncClient
from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel
from charlm_model.state import State
from charlm_server.engine.engine import Engine, EngineConfig
from charlm_server.engine.output_buffer import OutputBuffer
from charlm_server.engine.scoring import ScoringItem, ScoringJob
from charlm_server.engine.token_columns import Returns

RESULTS = Path(__file__).parent / "results" / "scoring.json"
CHARACTERS = string.ascii_letters + string.digits + " ."
VOCAB_SIZE = len(CHARACTERS) + 1
BARE_TOKENS = 100_000  # enough to know a rate that does not depend on the length
MODELS = {
    "gru 2x256": ("gru", 256, 2),
    "lstm 2x256": ("lstm", 256, 2),
    "transformer 4x128": ("transformer", 128, 4),
    "transformer 6x384": ("transformer", 384, 6),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--characters", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", choices=MODELS, action="append")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    print(f"{'medians of the rounds':28} characters/s  of default products  of packed products")
    for name in args.model or MODELS:
        config = config_of(*MODELS[name])
        with works_of(config, args.characters) as works:
            print(f"\n{name}")
            results[name] = {}
            for work in works:
                found = work.measured(args.rounds)
                results[name][work.name] = {key: median(each) for key, each in found.items()}
                print(f"  {work.name:28} {line(found)}", flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def config_of(family: str, width: int, num_layers: int) -> ModelConfig:
    return ModelConfig(
        family=family,
        vocab_size=VOCAB_SIZE,
        embedding_size=width,
        hidden_size=width,
        num_layers=num_layers,
        num_heads=width // 64,
        context_length=128,
    )


@dataclass(frozen=True, slots=True)
class Measure:
    """Something to do with so many tokens, and the products that it is compared with."""

    name: str
    num_tokens: int
    work: Work
    products: Products
    clock: Clock = time.thread_time

    def measured(self, num_rounds: int) -> dict[str, list[float]]:
        """Of every round."""
        found: dict[str, list[float]] = {"rate": [], "of_default": [], "of_packed": []}
        for _ in range(num_rounds):
            default_s, packed_s = self.products.token_s()
            token_s = seconds_of(self.work, self.clock) / self.num_tokens
            found["rate"].append(1 / token_s)
            found["of_default"].append(default_s / token_s)
            found["of_packed"].append(packed_s / token_s)
        return found


def line(found: dict[str, list[float]]) -> str:
    of_default, of_packed = shares(found["of_default"]), shares(found["of_packed"])
    return f"{median(found['rate']):12,.0f}  {of_default:>19}  {of_packed:>18}"


def shares(values: list[float]) -> str:
    """The median, and from where to where they go if there are several."""
    spread = f" ({min(values):.0%} to {max(values):.0%})" if len(values) > 1 else ""
    return f"{median(values):.0%}{spread}"


@contextmanager
def works_of(config: ModelConfig, num_tokens: int) -> Iterator[list[Measure]]:
    torch.manual_seed(1)
    model = build(config).eval()
    products = Products(model)
    bare = min(num_tokens, BARE_TOKENS)
    part = num_tokens // 32
    text = "".join(CHARACTERS[each] for each in torch.randint(VOCAB_SIZE - 1, (num_tokens,)))
    with served(config, CHARACTERS) as address, SyncClient(address) as client:
        works: list[tuple[str, int, Work]] = [
            ("products, row by row", NUM_STEPS, partial(products.step, NUM_STEPS)),
            ("forward", bare, partial(run, model, model.forward, bare)),
            ("exact path", bare, partial(run, model, model.advance, bare)),
            ("in process, 1 text", num_tokens, partial(score, model, [num_tokens])),
            ("in process, 32 texts", 32 * part, partial(score, model, [part] * 32)),
        ]
        streamed = partial(stream, client, text)
        yield [
            *(Measure(*work, products) for work in works),
            Measure("by gRPC, 1 text", num_tokens, streamed, products, time.perf_counter),
        ]


@torch.inference_mode()
def run(
    model: LanguageModel,
    advance: Callable[[torch.Tensor, State], tuple[torch.Tensor, State]],
    num_tokens: int,
) -> None:
    """One row, in chunks of a length that suits attention too."""
    state = model.initial_state(1)
    for ids_1T in torch.randint(1, VOCAB_SIZE, (1, num_tokens)).split(256, dim=1):
        _, state = advance(ids_1T, state)


def score(model: LanguageModel, lengths: list[int]) -> None:
    """Through the engine, without a wire."""
    engine = Engine(model, [b"x"] * VOCAB_SIZE, EngineConfig(batch_sizes=(1, 2, 4, 8, 16, 32)))
    ids = torch.randint(1, VOCAB_SIZE, (sum(lengths),)).split(lengths)
    job = ScoringJob(
        items=[ScoringItem(context_ids=[0], continuation_ids=each.tolist()) for each in ids],
        returns=Returns(),
        bytes_per_token=24,
        output=OutputBuffer(1 << 40, lambda: None),
    )
    engine.begin(job)
    while engine.has_work:
        engine.tick()


def stream(client: SyncClient, text: str) -> None:
    num_scored = sum(len(t.logprobs) for t in client.stream_score(text.encode(), model=NAME))
    if num_scored != len(text):
        raise ValueError(f"{num_scored} of {len(text)} characters were scored")


if __name__ == "__main__":
    main()
