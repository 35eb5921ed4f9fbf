"""How long a first character takes on a busy server, and how long a long prompt stops the others.

    python benchmarks/latency.py                       # about two minutes
    python benchmarks/latency.py --case "gru 2x256" --probes 100

Random weights, 65 characters, float32; server, load and probe share the processor. The load is 63
streams of `charlm bench serve`, another begun when one ends: long ones of 2,000 to 6,000 characters
after 20, and short ones of 128 to 384, which bring a new call every few milliseconds. The probe, a
process of its own, asks for one stream after the other and waits for its first character. The same
probe asks the idle server, before and after. The long prompt arrives in an engine in process while
63 rows decode: what is counted is how long one tick keeps them from their next step.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from latency_page import write_page
from served import NAME, served
from serving import CASES, CHARACTERS, RESULTS, config_of, machine
from serving_ours import SIZES, generation_job
from serving_peers import PROMPT_LENGTH

from charlm_client.bench.results import percentile
from charlm_client.client import Client
from charlm_client.types import Sampling, Stopping
from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel
from charlm_server.engine.engine import Engine, EngineConfig

Results = dict[str, Any]
NUM_OTHERS = 63
LENGTHS = {"long": "2000-6000", "short": "128-384"}  # of their outputs
WARM_UP_S, MOST_S = 2.0, 120.0
PAUSE_S = 0.02  # between probes
PROBE_LENGTH = 8  # characters of a probe's stream
LONG_PROMPT = 10_000
NUM_TICKS = 200


def main(
    case: Annotated[list[str] | None, typer.Option(help="A case; repeatable.")] = None,
    probes: Annotated[int, typer.Option(min=20, help="Streams of each measurement.")] = 300,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    torch.set_num_threads(threads)
    path = RESULTS / "latency.json"
    results: Results = json.loads(path.read_text()) if path.exists() else {"cases": {}}
    results["machine"] = machine(threads)
    for name in case or CASES:
        print(f"=== {name}", flush=True)
        config = config_of(*CASES[name])
        torch.manual_seed(0)
        found = pauses(build(config).eval())
        with served(config, CHARACTERS, threads=threads) as address:
            found |= asyncio.run(first_characters(address, probes))
        results["cases"][name] = found
        print(found, flush=True)
        path.write_text(json.dumps(results, indent=1) + "\n")
        write_page(results, RESULTS / "latency.md")


async def first_characters(address: str, num_probes: int) -> Results:
    """Seconds to the first character: of an idle server, and of one with 63 other streams."""
    async with Client(address) as client:
        idle, busy = await waits(client, num_probes), {}
        for name, lengths in LENGTHS.items():
            with load_on(address, lengths) as load:
                await asyncio.sleep(WARM_UP_S)
                busy[name] = spread(await waits(client, num_probes))
                assert load.poll() is None, "the load ended before the probe did"
        idle += await waits(client, num_probes)
    return {"idle": spread(idle), **busy}


async def waits(client: Client, num: int) -> list[float]:
    return [await first_character_s(client, seed) for seed in range(num)]


async def first_character_s(client: Client, seed: int) -> float:
    await asyncio.sleep(PAUSE_S)
    stopping = Stopping(max_new_tokens=PROBE_LENGTH, ignore_end_of_text=True)
    started = time.perf_counter()
    async with client.stream_generate(
        CHARACTERS[:PROMPT_LENGTH], model=NAME, sampling=Sampling(seed=seed), stopping=stopping
    ) as stream:
        waited_s = 0.0
        async for _ in stream:
            waited_s = waited_s or time.perf_counter() - started
    return waited_s


@contextmanager
def load_on(address: str, lengths: str) -> Iterator[subprocess.Popen[bytes]]:
    charlm = str(Path(sys.executable).with_name("charlm"))
    command = [charlm, "bench", "serve", "--server", address, "--streams", str(NUM_OTHERS)]
    command += ["--duration", str(MOST_S), "--prompt-length", str(PROMPT_LENGTH)]
    command += ["--output-length", lengths]
    busy = subprocess.Popen([*command, "--json"], stdout=subprocess.DEVNULL)
    try:
        yield busy
    finally:
        busy.terminate()
        busy.wait()


def pauses(model: LanguageModel) -> Results:
    """How long the 63 rows of an engine wait while a long prompt is read, in their own steps."""
    reading, stepping = Stopwatch(model.advance), Stopwatch(model.sample)
    model.advance, model.sample = reading, stepping  # type: ignore[method-assign]
    vocab_size, chance = model.config.vocab_size, random.Random(0)
    engine = Engine(model, [b"x"] * vocab_size, EngineConfig(batch_sizes=SIZES[:7]))
    for _ in range(NUM_OTHERS):
        engine.begin(generation_job(chance, vocab_size, output_length=1_000_000))
    while engine.num_running < NUM_OTHERS:
        engine.tick()
    num_before, stepping.seconds = engine.num_sampled_tokens, 0.0
    for _ in range(NUM_TICKS):
        engine.tick()
    step_s = stepping.seconds * NUM_OTHERS / (engine.num_sampled_tokens - num_before)
    engine.begin(generation_job(chance, vocab_size, LONG_PROMPT, output_length=1))
    stops, has_ended = [], False
    while not has_ended:
        reading.seconds = 0.0
        has_ended = any(event.closes for event in engine.tick())
        stops.append(reading.seconds / step_s)
    return {"step_s": step_s, "pause_in_steps": spread(stops)}


class Stopwatch:
    """A function, and the seconds that were spent in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.seconds = 0.0

    def __call__(self, *args: Any) -> Any:
        started = time.perf_counter()
        try:
            return self._function(*args)
        finally:
            self.seconds += time.perf_counter() - started


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": percentile(ordered, 0.5),
        "p99": percentile(ordered, 0.99),
        "most": ordered[-1],
        "num": len(ordered),
    }


if __name__ == "__main__":
    typer.run(main)
