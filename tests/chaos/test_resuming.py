"""Servers killed for real in the middle of streams: the reader sees one unbroken text."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from charlm_client import (
    After,
    Client,
    Constraint,
    GenerationStream,
    Resuming,
    Sampling,
    Stopping,
)
from charlm_client.types import Chunk
from charlm_model.checkpoint import save
from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.text.vocabulary import ByteVocabulary
from tests.e2e.processes import free_port, serving, whole

FAMILIES = ("ngram", "rnn", "gru", "lstm", "transformer")
NUM_TOKENS = 3_000
SAMPLING = Sampling(seed=11, repetition_penalty=1.1, penalty_window=20)
CALL_TIMEOUT_S = 300.0  # whatever else the machine does
# A server takes seconds to start on a busy machine.
PATIENT = Resuming(max_attempts=100, longest_wait_s=0.3)

pytestmark = pytest.mark.slow


def stream_of(client: Client) -> GenerationStream:
    stopping = Stopping(max_new_tokens=NUM_TOKENS, ignore_end_of_text=True)
    return client.stream_generate("once", model="lstm", sampling=SAMPLING, stopping=stopping)


@pytest.mark.parametrize("num_chunks_before", [1, 3])
async def test_another_replica_goes_on_with_the_same_bits(
    families: Path, num_chunks_before: int
) -> None:
    port = free_port()
    with serving(families / "lstm") as first:
        async with Client(
            f"{first.address},localhost:{port}", resuming=PATIENT, timeout_s=CALL_TIMEOUT_S
        ) as client:
            undisturbed = whole([chunk async for chunk in stream_of(client)])
            stream = stream_of(client)
            chunks = aiter(stream)
            received = [await anext(chunks) for _ in range(num_chunks_before)]
            first.kill()
            with serving(families / "lstm", port):
                received += [chunk async for chunk in chunks]

    assert whole(received) == undisturbed
    assert stream.num_resumptions > 0


async def test_a_server_that_comes_back_goes_on(families: Path) -> None:
    with serving(families / "lstm") as first:
        async with Client(first.address, resuming=PATIENT, timeout_s=CALL_TIMEOUT_S) as client:
            undisturbed = whole([chunk async for chunk in stream_of(client)])
            stream = stream_of(client)
            chunks = aiter(stream)
            received = [await anext(chunks) for _ in range(2)]
            first.kill()
            with serving(families / "lstm", first.address.rsplit(":", 1)[-1]):
                received += [chunk async for chunk in chunks]

    assert whole(received) == undisturbed
    assert stream.num_resumptions > 0


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each family that is trained, all with one vocabulary."""
    folder = tmp_path_factory.mktemp("families")
    torch.manual_seed(1)
    for family in FAMILIES:
        config = ModelConfig(
            family=family, vocab_size=257, hidden_size=16, embedding_size=8, num_heads=2
        )
        save(folder / family, build(config), ByteVocabulary(), {})
    return folder


async def streams_of(client: Client) -> dict[str, GenerationStream]:
    """One of each family, and of all that a stream may carry along."""
    state = await client.states.create("once upon a time", model="rnn")
    snapshot = await client.states.export(state.name)  # by its name no other server knows it
    asked: dict[str, tuple[str | After, Sampling, int]] = {
        "lstm": ("once", replace(SAMPLING, frequency_penalty=0.1), 1),
        "gru": ("once", Sampling(seed=1, constraint=Constraint(regex="([a-z]{3} )+")), 1),
        "rnn": (After(snapshot, "there"), Sampling(seed=2, presence_penalty=0.5), 1),
        "transformer": ("once", Sampling(seed=3, top_p=0.9), 3),
        "ngram": ("once", Sampling(seed=4, temperature=0.7), 1),
        "mixed": ("once", Sampling(seed=5, min_p=0.001), 1),
    }
    stopping = Stopping(
        max_new_tokens=NUM_TOKENS // 2, ignore_end_of_text=True, stop_sequences=("never",)
    )
    return {
        model: client.stream_generate(
            prompt, model=model, sampling=sampling, stopping=stopping, num_outputs=num_outputs
        )
        for model, (prompt, sampling, num_outputs) in asked.items()
    }


async def test_streams_of_every_family_survive_their_server(families: Path) -> None:
    """With penalties, a language, a state, several outputs, stop sequences, in a mixture."""
    port, flags = free_port(), ("--mixture", "mixed=online:gru,lstm")

    async def read(stream: GenerationStream) -> list[Chunk]:
        return [chunk async for chunk in stream]

    with serving(families, "0", *flags) as first:
        async with Client(
            f"{first.address},localhost:{port}", resuming=PATIENT, timeout_s=CALL_TIMEOUT_S
        ) as client:
            undisturbed = {
                name: await read(each) for name, each in (await streams_of(client)).items()
            }
            streams = await streams_of(client)
            begun = {name: aiter(each) for name, each in streams.items()}
            received = {name: [await anext(chunks)] for name, chunks in begun.items()}
            first.kill()
            with serving(families, port, *flags):
                for name, chunks in begun.items():
                    received[name] += [chunk async for chunk in chunks]

    for name, chunks in received.items():
        for index in {chunk.index for chunk in undisturbed[name]}:
            assert whole(chunks, index) == whole(undisturbed[name], index), name
        assert streams[name].num_resumptions > 0, name
