"""Our engine in process and behind gRPC: so many streams at once, from prompt to last character."""

import asyncio
import random
import time

import torch
from serving_peers import OUTPUT_LENGTH, PROMPT_LENGTH

from charlm_client.client import Client
from charlm_client.types import Sampling, Stopping
from charlm_model.language_model import LanguageModel
from charlm_model.sampling.params import SamplingParams
from charlm_server.engine.engine import Engine, EngineConfig
from charlm_server.engine.generation import Stopping as JobStopping
from charlm_server.engine.output_buffer import OutputBuffer
from charlm_server.engine.sequence import GenerationJob
from charlm_server.engine.token_columns import Returns

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def engine_rate(
    model: LanguageModel,
    num_streams: int,
    output_length: int = OUTPUT_LENGTH,
    *,
    kept_s: float = 0.0,
) -> float:
    """Tokens a second, sampled, with their log-probs, in process; kept for so long at least."""
    chance = random.Random(0)
    sizes = tuple(size for size in SIZES if size <= max(64, num_streams))
    engine = Engine(model, [b"x"] * model.config.vocab_size, EngineConfig(batch_sizes=sizes))
    started = time.perf_counter()
    for _ in range(num_streams):
        job = generation_job(chance, model.config.vocab_size, output_length=output_length)
        engine.begin(job)
    num_tokens = 0
    while engine.has_work:
        for event in engine.tick(kept_s=kept_s):
            num_tokens += len(event.part.columns) if event.part is not None else 0
    assert num_tokens == num_streams * output_length
    return num_tokens / (time.perf_counter() - started)


def generation_job(
    chance: random.Random,
    vocab_size: int,
    prompt_length: int = PROMPT_LENGTH,
    output_length: int = OUTPUT_LENGTH,
) -> GenerationJob:
    returns = Returns()
    return GenerationJob(
        prompt_ids=[0, *(chance.randrange(1, vocab_size) for _ in range(prompt_length))],
        params=SamplingParams(),
        seed=chance.getrandbits(60),
        stopping=JobStopping(max_new_tokens=output_length, ignore_end_of_text=True),
        returns=returns,
        num_outputs=1,
        bytes_per_token=returns.bytes_per_token(vocab_size),
        output=OutputBuffer(1 << 30, lambda: None),
    )


@torch.inference_mode()
def step_rate(model: LanguageModel, num_rows: int, num_steps: int = 64) -> float:
    """Tokens a second of the step alone, without sampling, at the positions of a short text."""
    state = model.initial_state(num_rows)
    ids_BT = torch.zeros(num_rows, PROMPT_LENGTH, dtype=torch.long)
    _, state = model.advance(ids_BT, state)
    started = time.perf_counter()
    for _ in range(num_steps):
        _, state = model.step(ids_BT[:, 0], state)
    return num_rows * num_steps / (time.perf_counter() - started)


async def served_rate(
    address: str, model: str, prompt: str, num_streams: int, output_length: int = OUTPUT_LENGTH
) -> float:
    """Tokens a second as they arrive, from the first call to the end of the last."""
    async with Client(address, timeout_s=600) as client:

        async def read(seed: int) -> int:
            stopping = Stopping(max_new_tokens=output_length, ignore_end_of_text=True)
            async with client.stream_generate(
                prompt, model=model, sampling=Sampling(seed=seed), stopping=stopping
            ) as stream:
                return sum([len(chunk.token_ids) async for chunk in stream])

        await read(0)  # the connection stands
        started = time.perf_counter()
        numbers = await asyncio.gather(*(read(seed) for seed in range(num_streams)))
        assert sum(numbers) == num_streams * output_length
        return sum(numbers) / (time.perf_counter() - started)
