"""What serving on a GPU gives: bursts alone, the engine in process, and through gRPC.

    python benchmarks/serving_gpu.py                       # everything, about two minutes
    python benchmarks/serving_gpu.py --case "lstm 2x256" --no-grpc

Random weights, 65 characters, float32. A burst is `sample`: characters drawn from the model's own
distribution with their log-probs, ids and log-probs back in the processor's memory. First it is
checked that bits do not depend on company, and that they are close to the processor's. The roofline
is the time that the bytes of a step (weights once; state read, and written where it changes) take
at the rate of a large copy measured in the same run.
"""

import asyncio
import json
import multiprocessing
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from gpu_checks import checks_of
from served import NAME, served
from serving import CASES, CHARACTERS, config_of
from serving_gpu_page import write_page
from serving_ours import engine_rate, served_rate

from charlm_model.config import ModelConfig
from charlm_model.devices import device_named
from charlm_model.families.registry import build
from charlm_model.gpu.placement import on_device
from charlm_model.language_model import LanguageModel
from charlm_model.sampling.philox import Counters
from charlm_server.config.limits import Limits
from charlm_server.scheduling.delivery import MOST_KEPT_S

RESULTS = Path(__file__).parent / "results"
STREAMS = (1, 64, 1024)
NUM_STEPS, MIN_SECONDS, PROMPT_LENGTH, OUTPUT_LENGTH = 64, 0.4, 20, 1000
PROMPT = "The quick brown fox "
NUM_CLIENTS = 8
Results = dict[str, Any]


def main(
    case: Annotated[list[str] | None, typer.Option(help="A case; repeatable.")] = None,
    device: str = "cuda",
    checks: Annotated[bool, typer.Option(help="Whether bits are what they must be.")] = True,
    rates: Annotated[bool, typer.Option(help="Bursts, and the engine in process.")] = True,
    engine: Annotated[bool, typer.Option(help="The latter.")] = True,
    grpc: Annotated[bool, typer.Option(help="Through a server on this machine, too.")] = True,
) -> None:
    target = device_named(device)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "serving_gpu.json"
    results: Results = json.loads(path.read_text()) if path.exists() else {"cases": {}}
    results["machine"] = machine(target)
    print(results["machine"], flush=True)
    for name in case or CASES:
        print(f"=== {name}", flush=True)
        found = results["cases"].setdefault(name, {"checks": {}, "rates": {}, "roofline": {}})
        model = build(config_of(*CASES[name])).eval()
        gpu = on_device(_scrambled(model), target)
        if checks:
            check(found, model, gpu)
        if rates:
            measure(found, gpu, results["machine"]["copied_bytes_per_s"], with_engine=engine)
        if grpc:
            measure_grpc(found, model.config, device)
        path.write_text(json.dumps(results, indent=1) + "\n")
        write_page(results, RESULTS / "serving_gpu.md")


def machine(device: torch.device) -> Results:
    import triton

    return {
        "gpu": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "copied_bytes_per_s": copy_rate(device),
    }


def copy_rate(device: torch.device, num_bytes: int = 1 << 30) -> float:
    """Bytes read and written each second by a large copy."""
    given = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    copy = torch.empty_like(given)
    copy.copy_(given)
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(20):
        copy.copy_(given)
    torch.cuda.synchronize(device)
    return 20 * 2 * num_bytes / (time.perf_counter() - started)


def check(found: Results, model: LanguageModel, gpu: LanguageModel) -> None:
    assert gpu is not model, f"{model.config.family} has no kernels for a GPU"
    for what, check in checks_of(model, gpu):
        found["checks"][what] = _attempt(what, check)


def measure(found: Results, gpu: LanguageModel, bytes_per_s: float, *, with_engine: bool) -> None:
    for num in STREAMS:
        rates = found["rates"].setdefault(str(num), {})
        found["roofline"][str(num)] = roofline(gpu, num, bytes_per_s)
        rates["burst"] = _attempt(f"burst, {num}", lambda n=num: burst_rate(gpu, n))
        if not with_engine:
            continue
        length = OUTPUT_LENGTH if num > 1 else 4 * OUTPUT_LENGTH
        rates["engine"] = _attempt(
            f"engine, {num}", lambda n=num, k=length: engine_rate(gpu, n, k, kept_s=MOST_KEPT_S)
        )


def measure_grpc(found: Results, config: ModelConfig, device: str) -> None:
    most = STREAMS[-1]
    limits = Limits(max_queued_requests=most, caller_share=1.0, max_open_calls=2 * most)
    settings = {"device": device, "max_batch_size": most, "threads": 1, "limits": limits}
    with (
        served(config, CHARACTERS, **settings) as address,
        ProcessPoolExecutor(NUM_CLIENTS, multiprocessing.get_context("spawn")) as pool,
    ):
        for num in STREAMS:
            rates = found["rates"].setdefault(str(num), {})
            rates["gRPC"] = _attempt(f"gRPC, {num}", lambda n=num: _over_grpc(pool, address, n))


@torch.no_grad()
def _scrambled(model: LanguageModel) -> LanguageModel:
    """No weight is zero: a fresh Transformer's layers would change nothing."""
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.02)
    return model


@torch.inference_mode()
def burst_rate(gpu: LanguageModel, num_rows: int) -> float:
    """Characters a second in the second half of a context, as in the middle of a long output."""
    ids_BT = torch.randint(gpu.config.vocab_size, (num_rows, PROMPT_LENGTH))
    logits_BTV, state = gpu.advance(ids_BT, gpu.initial_state(num_rows))
    logits_BV, position = logits_BTV[:, -1], 0
    rates = []
    ends_at = time.perf_counter() + MIN_SECONDS
    while len(rates) < 8 or time.perf_counter() < ends_at:
        started = time.perf_counter()
        places_B = np.full(num_rows, position, np.uint64)
        counters = Counters(np.arange(num_rows, dtype=np.uint64), np.zeros_like(places_B), places_B)
        _, logits_BV, state = gpu.sample(logits_BV, state, counters, NUM_STEPS)
        position += NUM_STEPS
        rates.append(num_rows * NUM_STEPS / (time.perf_counter() - started))
    return float(np.median(rates[4:]))


def roofline(gpu: LanguageModel, num_rows: int, bytes_per_s: float) -> float:
    """Characters a second if a step's bytes were all that took time."""
    weights = 4 * sum(each.numel() for each in gpu.parameters())
    state = gpu.initial_state(1)
    read = state.num_bytes_per_row
    is_ring = "keys" in state.tensors
    written = read // gpu.config.context_length if is_ring else read
    return num_rows * bytes_per_s / (weights + num_rows * (read + written))


def _over_grpc(pool: ProcessPoolExecutor, address: str, num_streams: int) -> float:
    """Clients in processes of their own, so that they do not wait for each other."""
    num_clients = min(NUM_CLIENTS, num_streams)
    length = OUTPUT_LENGTH if num_streams > 1 else 4 * OUTPUT_LENGTH
    shares = [num_streams // num_clients] * num_clients
    list(pool.map(_client, [address] * num_clients, [1] * num_clients, [1] * num_clients))
    return sum(pool.map(_client, [address] * num_clients, shares, [length] * num_clients))


def _client(address: str, num_streams: int, length: int) -> float:
    return asyncio.run(served_rate(address, NAME, PROMPT, num_streams, length))


def _attempt(what: str, measure: Callable[[], Any]) -> Any:
    """What it gives; a failure is printed, and the rest is still measured."""
    started = time.perf_counter()
    try:
        found = measure()
    except Exception as error:  # noqa: BLE001  whatever it is, it is reported
        traceback.print_exc()
        found = f"failed: {error}"[:300]
    shown = f"{found:,.0f}" if isinstance(found, float) else found
    print(f"{what:45} {shown}   ({time.perf_counter() - started:.1f} s)", flush=True)
    return found


if __name__ == "__main__":
    typer.run(main)
