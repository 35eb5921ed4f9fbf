"""What serving costs: the step alone, the engine in process, through gRPC, and other systems.

Prints every bar of serving and whether it is met, those of the other benchmarks from their results.

    python benchmarks/serving.py                       # everything, about ten minutes
    python benchmarks/serving.py --case "lstm 2x256" --rounds 3

Random weights, 65 characters, float32, a prompt of 20 characters and 256 sampled ones per stream
with their log-probs; of recurrent models 1,000 as well, which a busy server's engine hands over
less often. Client and server share the processor. All ways take turns in every round; a
ratio is of one round, its median, least and most are of all rounds. The roofline is the time of a
step's products at the rate of the largest product that torch does here.
"""

import asyncio
import json
import os
import platform
import string
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from served import NAME, served
from serving_bars import bars
from serving_ours import engine_rate, served_rate, step_rate
from serving_page import write_page
from serving_peers import PROMPT_LENGTH, peers_of

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel
from charlm_server.scheduling.delivery import MOST_KEPT_S

RESULTS = Path(__file__).parent / "results"
CHARACTERS = string.ascii_letters + string.digits + " .\n"
CASES = {
    "gpt 4x128, 4 heads": ("transformer", 4, 4, 128),
    "gpt 6x384, 6 heads": ("transformer", 6, 6, 384),
    "gru 2x256": ("gru", 2, 1, 256),
    "gru 2x512": ("gru", 2, 1, 512),
    "lstm 2x256": ("lstm", 2, 1, 256),
    "lstm 2x512": ("lstm", 2, 1, 512),
}
CONTEXT_LENGTH = 288  # holds the prompt and the output
STREAMS = (64, 1)
LONG_OUTPUT = 1000
LONG_ENGINE, LONG_GRPC = (f"{way}, {LONG_OUTPUT:,}" for way in ("engine", "gRPC"))
OURS = ("step", "engine", "gRPC", LONG_ENGINE, LONG_GRPC)
OF_OURS = (
    ("engine", "step"),
    ("gRPC", "engine"),
    (LONG_ENGINE, "roofline"),
    (LONG_GRPC, LONG_ENGINE),
)
REST_S = 0.5
Results = dict[str, Any]


def main(
    case: Annotated[list[str] | None, typer.Option(help="A case; repeatable.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    torch.set_num_threads(threads)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "serving.json"
    results: Results = json.loads(path.read_text()) if path.exists() else {"cases": {}}
    results["machine"] = machine(threads)
    for name in case or CASES:
        print(f"=== {name}", flush=True)
        results["cases"][name] = measured(*CASES[name], rounds=rounds, threads=threads)
        path.write_text(json.dumps(results, indent=1) + "\n")
        write_page(results, RESULTS / "serving.md")
    print("\n".join(bars()))


def machine(threads: int) -> Results:
    return {
        "cores": os.cpu_count(),
        "threads": threads,
        "architecture": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def config_of(
    family: str, layers: int, heads: int, width: int, context_length: int = CONTEXT_LENGTH
) -> ModelConfig:
    return ModelConfig(
        family=family,
        vocab_size=len(CHARACTERS) + 1,
        embedding_size=64,
        hidden_size=width,
        num_layers=layers,
        num_heads=heads,
        context_length=context_length,
    )


def measured(
    family: str, layers: int, heads: int, width: int, *, rounds: int, threads: int
) -> Results:
    config = config_of(family, layers, heads, width)
    torch.manual_seed(0)
    model = build(config).eval()
    prompt = CHARACTERS[:PROMPT_LENGTH]
    with (
        served(config, CHARACTERS, threads=threads) as address,
        peers_of(family, layers, heads, width, threads) as peers,
    ):
        ways: dict[str, Callable[[int], float]] = {
            "roofline": lambda num: roofline_rate(model, num),
            "step": lambda num: step_rate(model, num),
            "engine": lambda num: engine_rate(model, num),
            "gRPC": lambda num: asyncio.run(served_rate(address, NAME, prompt, num)),
            **peers,
        }
        if config.family != "transformer":
            ways[LONG_ENGINE] = lambda num: engine_rate(
                model, num, LONG_OUTPUT, kept_s=MOST_KEPT_S if num > 1 else 0.0
            )
            ways[LONG_GRPC] = lambda num: asyncio.run(
                served_rate(address, NAME, prompt, num, LONG_OUTPUT)
            )
        for way in ways.values():
            way(1)
        return {str(num): compared(ways, num, rounds) for num in STREAMS}


def compared(ways: dict[str, Callable[[int], float]], num: int, rounds: int) -> Results:
    """Tokens a second of every way, and their ratios to each peer and to each other."""
    rates = [{name: after_a_rest(way, num) for name, way in ways.items()} for _ in range(rounds)]
    found = {name: median(each[name] for each in rates) for name in ways}
    peers = [name for name in ways if name not in OURS]
    pairs = [(mine, peer) for mine in OURS[:3] for peer in peers]
    pairs += [(mine, other) for mine, other in OF_OURS if mine in ways]
    ratios = {
        f"{mine} / {other}": spread([each[mine] / each[other] for each in rates])
        for mine, other in pairs
    }
    for name, rate in found.items():
        print(f"{num:3d} {name:22} {rate:12,.0f}", flush=True)
    return {"rates": found, "ratios": ratios}


def after_a_rest(way: Callable[[int], float], num: int) -> float:
    """Threads of others spin for a while after their work: the next one does not pay for it."""
    time.sleep(REST_S)
    return way(num)


def spread(values: list[float]) -> Results:
    return {"median": median(values), "least": min(values), "most": max(values)}


@torch.inference_mode()
def roofline_rate(model: LanguageModel, num_rows: int) -> float:
    """Tokens a second if a step were its products at the best rate of a large one."""
    operations = 2 * sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and "embedding" not in name
    )
    side = 2048
    a, b = torch.ones(side, side), torch.ones(side, side)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds) / operations


if __name__ == "__main__":
    typer.run(main)
