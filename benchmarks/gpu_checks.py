"""Checks of a GPU's results: batch invariance, draws, and agreement with the CPU.

Legend: B rows, T tokens, V vocabulary, K steps.
"""

import hashlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from charlm_model.language_model import Burst, LanguageModel
from charlm_model.sampling.draw import draw, logprobs_from
from charlm_model.sampling.philox import Counters
from charlm_model.state import State
from charlm_server.models.batch_invariance import measure_batch_invariance
from charlm_server.models.loading import batch_sizes

NUM_PROMPT, NUM_STEPS = 37, 45  # neither a power of two
SIZES = (1, 2, 7, 64, 129, 1024)
PROBE_SEED = 11


def checks_of(model: LanguageModel, gpu: LanguageModel) -> Iterator[tuple[str, Callable[[], str]]]:
    """Names of checks, and functions that return a result or raise AssertionError."""
    yield "close to the CPU", lambda: closeness(model, gpu)
    yield "the same bits in any batch", lambda: same_in_any_batch(gpu)
    yield "the same bits in any chunks", lambda: same_in_chunks(gpu)
    yield "draws and log-probs of the CPU's sampling", lambda: sampling_agrees(gpu)
    yield "certified", lambda: certified(gpu)
    yield "waits are work", lambda: waits_are_work(gpu)


@torch.inference_mode()
def closeness(model: LanguageModel, gpu: LanguageModel) -> str:
    ids_BT = _ids(gpu, 3)
    ours_BTV, ours = gpu.advance(ids_BT, gpu.initial_state(3))
    wanted_BTV, wanted = model.advance(ids_BT, model.initial_state(3))
    worst = (ours_BTV.double().log_softmax(-1) - wanted_BTV.double().log_softmax(-1)).abs().max()
    states = max(
        float((ours[name].cpu().double() - wanted[name].double()).abs().max())
        for name in wanted.tensors
    )
    bound = 1e-3 if "keys" in wanted.tensors else 1e-4  # those are in bfloat16
    assert worst < bound, f"log-probs differ by {worst:.3g}, states by {states:.3g}"
    return f"log-probs within {worst:.2g}, states within {states:.2g}"


@torch.inference_mode()
def same_in_any_batch(gpu: LanguageModel) -> str:
    wanted = _digest(*_sampled(gpu, 1, 0))
    found = {
        (size, row): _digest(*_sampled(gpu, size, row))
        for size in SIZES
        for row in {0, size // 2, size - 1}
    }
    wrong = [place for place, digest in found.items() if digest != wanted]
    assert not wrong, f"other bits in (size, row) {wrong}"
    return f"{len(found)} places"


@torch.inference_mode()
def same_in_chunks(gpu: LanguageModel) -> str:
    ids_BT = _ids(gpu, 3)
    whole_BTV, state = gpu.advance(ids_BT, gpu.initial_state(3))
    wanted = _digest(whole_BTV, state)
    for chunk in (1, 5, 16):
        parts, state = [], gpu.initial_state(3)
        for ids in ids_BT.split(chunk, dim=1):
            part_BTV, state = gpu.advance(ids, state)
            parts.append(part_BTV)
        assert _digest(torch.cat(parts, 1), state) == wanted, f"other bits in chunks of {chunk}"
    return "chunks of 1, 5 and 16"


@torch.inference_mode()
def sampling_agrees(gpu: LanguageModel) -> str:
    """A burst, and single steps whose tokens the CPU draws from the logits."""
    B = 256
    ids_BT = _ids(gpu, B)
    logits_BTV, state = gpu.advance(ids_BT, gpu.initial_state(B))
    counters = _counters(B, 0)
    burst, last_BV, _ = gpu.sample(logits_BTV[:, -1], state.clone(), counters, NUM_STEPS)
    logits_BV = logits_BTV[:, -1]
    wrong_ids, wrong_logprobs = 0, 0
    for step in range(NUM_STEPS):
        logprobs_BV = logprobs_from(logits_BV.numpy())
        ids_B = draw(logprobs_BV, counters.uniforms(step))
        wrong_ids += int((ids_B != burst.ids_BK[:, step]).sum())
        chosen_B = logprobs_BV[np.arange(B), burst.ids_BK[:, step]].astype(np.float32)
        wrong_logprobs += int((chosen_B != burst.logprobs_BK[:, step]).sum())
        logits_BV, state = gpu.step(torch.from_numpy(burst.ids_BK[:, step].copy()), state)
    is_same = torch.equal(logits_BV, last_BV)
    text = f"{wrong_ids} ids and {wrong_logprobs} log-probs of {B * NUM_STEPS} are others"
    assert not wrong_ids + wrong_logprobs, text
    assert is_same, "the logits after a burst are others than after steps"
    return f"{B * NUM_STEPS} ids and log-probs"


def certified(gpu: LanguageModel) -> str:
    sizes = batch_sizes(1024)
    found = measure_batch_invariance(gpu, sizes)
    assert found.is_batch_invariant, "not invariant"
    assert found.sizes == tuple(sizes), f"only {found.sizes}"
    return f"{len(sizes)} sizes"


@torch.inference_mode()
def waits_are_work(gpu: LanguageModel) -> str:
    """The engine measures its thread's CPU time, so waiting for the GPU must busy-wait."""
    B = 64
    logits_BV, state = torch.zeros(B, gpu.config.vocab_size), gpu.initial_state(B)
    gpu.sample(
        logits_BV, state, _counters(B, 0), NUM_STEPS
    )  # captures the graphs that are replayed below
    began, began_work = time.perf_counter(), time.thread_time()
    for _ in range(20):
        gpu.sample(logits_BV, state, _counters(B, 0), NUM_STEPS)
    share = (time.thread_time() - began_work) / (time.perf_counter() - began)
    assert share > 0.5, f"of the time {share:.2f} is the processor's"
    return f"of the time {share:.2f} is the processor's"


def _sampled(gpu: LanguageModel, size: int, row: int) -> tuple[Tensor, State, Burst]:
    """The results of a prompt and a burst in one row, for any other rows."""
    ids_BT = _ids(gpu, size)
    ids_BT[row] = _ids(gpu, 1)[0]
    logits_BTV, state = gpu.advance(ids_BT, gpu.initial_state(size))
    burst, logits_BV, state = gpu.sample(logits_BTV[:, -1], state, _counters(size, row), NUM_STEPS)
    seen = torch.cat([logits_BTV[row].flatten(), logits_BV[row]])
    return seen, state.select_rows([row]), Burst(burst.ids_BK[[row]], burst.logprobs_BK[[row]])


def _ids(gpu: LanguageModel, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randint(gpu.config.vocab_size, (size, NUM_PROMPT), generator=generator)


def _counters(size: int, probe: int) -> Counters:
    seeds_B = np.arange(size, dtype=np.uint64) + np.uint64(1 << 63)
    seeds_B[probe] = PROBE_SEED
    return Counters(seeds_B, np.full(size, 2, np.uint64), np.full(size, 5, np.uint64))


def _digest(logits: Tensor, state: State, burst: Burst | None = None) -> str:
    found = hashlib.sha256(logits.contiguous().numpy().tobytes())
    for _, tensor in sorted(state.tensors.items()):
        found.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    if burst is not None:
        found.update(burst.ids_BK.tobytes() + burst.logprobs_BK.tobytes())
    return found.hexdigest()
