"""A model asked for one token by the server itself, where no caller would find out if it can."""

import contextlib

from charlm_model.sampling_params import SamplingParams
from charlm_model.vocabulary import END_OF_TEXT_ID
from charlm_server.columns import Returns
from charlm_server.errors import CharlmError
from charlm_server.loaded import LoadedModel
from charlm_server.sequence import GenerationJob, Stopping


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
