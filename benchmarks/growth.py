"""How cost grows: with the context, with the streams; memory of a stream; seconds to start.

    python benchmarks/growth.py                        # everything, about six minutes
    python benchmarks/growth.py --only streams,memory

Random weights, 65 characters, float32. Parts: `context` (microseconds a character of one text, at
places up to 1,000,000 characters for the recurrent families and three windows for the
Transformer), `streams` (characters a second in process, sampled, of 1 to 512 streams), `memory`
(resident bytes that 128 open streams add to a server, each), `start` (from the command to the line
that says it serves, kernels compiled before). Results of parts that ran earlier are kept.
"""

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from growth_page import write_page, write_plots
from served import NAME, served
from serving import CASES, CHARACTERS, RESULTS, config_of, machine
from serving_ours import SIZES, engine_rate
from serving_peers import PROMPT_LENGTH

from charlm_client.client import Client
from charlm_client.types import Sampling, Stopping
from charlm_model import checkpoint
from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel
from charlm_model.text.vocabulary import CharVocabulary
from charlm_server.scheduling.delivery import MOST_KEPT_S

Results = dict[str, Any]
PARTS = ("context", "streams", "memory", "start")
RECURRENT = ("gru 2x256", "lstm 2x256")
TRANSFORMER = "gpt 4x128, 4 heads"
WINDOWS = (256, 1024, 4096)
LONGEST, CHUNK = 1_000_000, 1000
OPEN_STREAMS = 128
NUM_STARTS = 5


def main(
    only: Annotated[str, typer.Option(help="Parts, separated by commas.")] = ",".join(PARTS),
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    torch.set_num_threads(threads)
    path = RESULTS / "growth.json"
    results: Results = json.loads(path.read_text()) if path.exists() else {}
    results["machine"] = machine(threads)
    parts = {
        "context": context,
        "streams": streams,
        "memory": lambda: memory(threads),
        "start": start,
    }
    for name in only.split(","):
        if name not in parts:
            raise typer.BadParameter(f"{name} is no part; parts are {', '.join(PARTS)}.")
        print(f"=== {name}", flush=True)
        results[name] = parts[name]()
        path.write_text(json.dumps(results, indent=1) + "\n")
    write_page(results, RESULTS / "growth.md")
    write_plots(results, RESULTS)


def context() -> Results:
    """For each model: [characters before, microseconds a character, bytes of the state]."""
    found = {}
    for name in RECURRENT:
        torch.manual_seed(0)
        found[name] = costs(build(config_of(*CASES[name])).eval(), LONGEST)
        print(name, found[name][-1], flush=True)
    for window in WINDOWS:
        torch.manual_seed(0)
        model = build(config_of(*CASES[TRANSFORMER], context_length=window)).eval()
        found[f"{TRANSFORMER}, window {window}"] = costs(model, 3 * window)
        print(window, found[f"{TRANSFORMER}, window {window}"][-1], flush=True)
    return found


@torch.inference_mode()
def costs(model: LanguageModel, num_tokens: int) -> list[list[float]]:
    """Of about forty places, evenly far apart; read by one row in chunks."""
    chunk = min(CHUNK, num_tokens // 40)
    every = max(1, num_tokens // chunk // 40)
    num_tokens -= num_tokens % (every * chunk)
    model.advance(torch.zeros(1, chunk, dtype=torch.long), model.initial_state(1))  # warms up
    state, points, seconds = model.initial_state(1), [], 0.0
    for number, ids_1T in enumerate(torch.randint(1, 65, (1, num_tokens)).split(chunk, dim=1)):
        started = time.perf_counter()
        _, state = model.advance(ids_1T, state)
        seconds += time.perf_counter() - started
        if (number + 1) % every == 0:
            micros = 1e6 * seconds / (every * chunk)
            points.append([(number + 1) * chunk, micros, float(state.num_bytes_per_row)])
            seconds = 0.0
    return points


def streams() -> Results:
    """For each model: [streams, characters a second], handed over as seldom as a busy server does.

    The better of two runs.
    """
    found = {}
    for name in (*RECURRENT, TRANSFORMER):
        torch.manual_seed(0)
        model = build(config_of(*CASES[name])).eval()
        found[name] = [
            [num, max(engine_rate(model, num, kept_s=MOST_KEPT_S) for _ in range(2))]
            for num in SIZES
        ]
        print(name, found[name], flush=True)
    return found


def memory(threads: int) -> Results:
    """Bytes a stream: of its state, and of all that a server keeps for it while it runs."""
    found = {}
    for name in (*CASES,):
        config = config_of(*CASES[name])
        with served(config, CHARACTERS, threads=threads, max_batch_size=OPEN_STREAMS) as address:
            [server] = multiprocessing.active_children()
            per_stream = asyncio.run(resident_bytes_per_stream(address, server.pid or 0))
        state_bytes = build(config).initial_state(1).num_bytes_per_row
        found[name] = {"state": state_bytes, "resident": per_stream}
        print(name, found[name], flush=True)
    return found


async def resident_bytes_per_stream(address: str, pid: int) -> float:
    """What a server holds more once all streams are running, and read as fast as they come."""
    async with Client(address, timeout_s=600) as client:
        await with_open_streams(client, pid, 1)
        before = resident_bytes(pid)
        during = await with_open_streams(client, pid, OPEN_STREAMS)
    return (during - before) / OPEN_STREAMS


async def with_open_streams(client: Client, pid: int, num: int) -> float:
    """Resident bytes when each of so many streams has sent something."""
    begun = [asyncio.Event() for _ in range(num)]

    async def read(seed: int) -> None:
        async with client.stream_generate(
            CHARACTERS[:PROMPT_LENGTH],
            model=NAME,
            sampling=Sampling(seed=seed),
            stopping=Stopping(max_new_tokens=100_000, ignore_end_of_text=True),
        ) as stream:
            async for _ in stream:
                begun[seed].set()

    tasks = [asyncio.create_task(read(seed)) for seed in range(num)]
    await asyncio.gather(*(each.wait() for each in begun))
    found = resident_bytes(pid)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


def resident_bytes(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def start() -> Results:
    """Seconds from `charlm serve` to its ready line, and of a Python that only imports torch."""
    config = config_of(*CASES["lstm 2x256"])
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model"
        checkpoint.save(path, build(config).eval(), CharVocabulary(CHARACTERS), {})
        seconds = [seconds_to_serve(path) for _ in range(NUM_STARTS + 1)][1:]
    found = {"serve": seconds, "import_torch": [seconds_to_import() for _ in range(NUM_STARTS)]}
    print({name: median(each) for name, each in found.items()}, flush=True)
    return found


def seconds_to_serve(path: Path) -> float:
    charlm = str(Path(sys.executable).with_name("charlm"))
    started = time.perf_counter()
    server = subprocess.Popen(
        [charlm, "serve", str(path), "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    server.stdout.readline()
    seconds = time.perf_counter() - started
    server.terminate()
    server.wait()
    return seconds


def seconds_to_import() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    typer.run(main)
