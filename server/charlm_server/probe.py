"""A model asked for one token by the server itself, where no caller would find out if it can."""

import contextlib

from charlm_model.sampling.params import SamplingParams
from charlm_model.text.vocabulary import END_OF_TEXT_ID
from charlm_server.engine.sequence import GenerationJob, Stopping
from charlm_server.engine.token_columns import Returns
from charlm_server.errors.base import CharlmError
from charlm_server.models.registry import LoadedModel


async def probe(model: LoadedModel) -> None:
    """Have one token sampled; whether that was done, the engine's pulse tells."""
    job = GenerationJob(
        prompt_ids=[END_OF_TEXT_ID],
        params=SamplingParams(),
        seed=0,
        stopping=Stopping(max_new_tokens=1),
        returns=Returns(),
        num_outputs=1,
        bytes_per_token=1,
        output=model.accumulator(),
    )
    with contextlib.suppress(CharlmError):
        async with model.scheduler.generate(job):
            await job.output.take(1)
