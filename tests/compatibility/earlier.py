"""Checkpoints, states, resume tokens and compressed files as a version of charlm writes them.

    python -m tests.compatibility.earlier FOLDER     # writes them, for `test_earlier_versions.py`

Run it once for every version whose files are to be read for ever after, and commit the folder.
"""

import asyncio
import json
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch

from charlm.v1 import generation_pb2, generation_pb2_grpc
from charlm_client import Client, Sampling, Stopping
from charlm_model import checkpoint as checkpoints
from charlm_model.config import ModelConfig
from charlm_model.families.kneser_ney import fit
from charlm_model.families.ngram import NGram
from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel
from charlm_model.text.vocabulary import END_OF_TEXT_ID, CharVocabulary
from charlm_server.app import App
from charlm_server.config.mixtures import named_mixtures
from charlm_server.config.settings import ServeConfig
from charlm_server.models.loading import load_models

FAMILIES = ("ngram", "rnn", "gru", "lstm", "transformer")
MIXTURES = {"mixed": "online:ngram,gru"}
MODELS = (*FAMILIES, *MIXTURES)
TEXT = "the cat sat on the mat. "
FILE = (TEXT * 8 + "caf\N{LATIN SMALL LETTER E WITH ACUTE}").encode()
# Without an end of text, so that every output has all its tokens.
SAMPLING = Sampling(temperature=0.8, top_p=0.9, seed=5, logit_bias={END_OF_TEXT_ID: -100.0})
NUM_TOKENS, NUM_RECEIVED = 40, 15


def model_of(family: str, vocab_size: int) -> LanguageModel:
    """With random weights, far enough from zero that every character has its own probability."""
    torch.manual_seed(2)
    config = ModelConfig(
        family=family, vocab_size=vocab_size, embedding_size=4, hidden_size=8, num_layers=2,
        num_heads=2, context_length=6, kernel_size=3, pair_rows=5,
    )  # fmt: skip
    if family == "ngram":
        ngram = ModelConfig(family=family, vocab_size=vocab_size, context_length=3)
        ids = np.random.default_rng(1).integers(0, vocab_size, 300)
        return NGram(ngram, fit(ids, vocab_size, 3)).eval()
    model = build(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


@asynccontextmanager
async def serving(folder: Path, threads: int = 1) -> AsyncIterator[str]:
    """The address of a server of all checkpoints of a folder, and of the mixture of two."""
    config = ServeConfig(
        checkpoints={f"models/{family}": folder / family for family in FAMILIES},
        mixtures=named_mixtures(
            [f"{name}={kind}" for name, kind in MIXTURES.items()],
            [f"models/{family}" for family in FAMILIES],
        ),
        port=0,
        max_batch_size=4,
        threads=threads,
    )
    app = App(config, load_models(config))
    address = await app.start()
    try:
        yield address
    finally:
        await app.drain(0.0)


def request_of(model: str) -> generation_pb2.StreamGenerateRequest:
    generate = generation_pb2.GenerateRequest(
        model=f"models/{model}",
        context={"text": "the cat"},
        sampling={
            "temperature": 0.8, "top_p": 0.9, "seed": 5,
            "biases": [{"token_id": END_OF_TEXT_ID, "bias": -100.0}],
        },
        stopping={"max_new_tokens": NUM_TOKENS},
    )  # fmt: skip
    return generation_pb2.StreamGenerateRequest(
        generate=generate, resume_tokens=True, max_chunk_tokens=1
    )


async def streamed(
    address: str, request: generation_pb2.StreamGenerateRequest
) -> list[generation_pb2.OutputChunk]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        return [
            chunk async for response in stub.StreamGenerate(request) for chunk in response.chunks
        ]


async def told(client: Client, model: str) -> dict[str, Any]:
    """What a server says of a model that a later version must say as well."""
    (score,) = await client.score([TEXT], model=model)
    generated = await client.generate(
        "the cat", model=model, sampling=SAMPLING, stopping=Stopping(max_new_tokens=NUM_TOKENS)
    )
    return {"logprobs": list(score.logprobs), "text": generated.outputs[0].text}


async def write(folder: Path) -> None:
    vocabulary = CharVocabulary.from_text(TEXT)
    for family in FAMILIES:
        checkpoints.save(folder / family, model_of(family, vocabulary.size), vocabulary, {})
    known: dict[str, Any] = {}
    async with serving(folder) as address, Client(address) as client:
        for model in MODELS:
            state = await client.states.create(TEXT, model=model)
            chunks = await streamed(address, request_of(model))
            received = chunks[:NUM_RECEIVED]
            known[model] = await told(client, model) | {
                "state": b64encode(await client.states.export(state.name)).decode(),
                "compressed": b64encode(await client.compress(FILE, model=model).read()).decode(),
                "resume_token": b64encode(received[-1].resume_token).decode(),
                "received": [id for chunk in received for id in chunk.tokens.token_ids],
                "rest": "".join(chunk.text for chunk in chunks[NUM_RECEIVED:]),
            }
    text = json.dumps(known, indent=1, sort_keys=True) + "\n"
    (folder / "known.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))
