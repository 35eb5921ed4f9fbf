"""The same request has the same bits alone and in any batch, at any load, in any form.

CHARLM_SOAK_SECONDS makes it go on for longer; then the server's memory must stay flat too.
"""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from charlm.v1 import generation_pb2 as pb
from charlm.v1 import generation_pb2_grpc
from charlm_client import Client, Sampling, Stopping
from charlm_client.wire.to_proto import generate_message
from charlm_model.checkpoint import save
from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.text.vocabulary import CharVocabulary

CHARLM = [sys.executable, "-m", "charlm_client"]
SECONDS = float(os.environ.get("CHARLM_SOAK_SECONDS", "5"))
CALL_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30
ALPHABET = "abcdefghijklmnopqrstuvwxyz .\n"
FAMILIES = ("gru", "lstm", "transformer")
NUM_ASKS, NUM_COMPANIONS = 40, 24
MAX_GROWTH = 1.1  # of the server's memory, after it has warmed up

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Ask:
    """A request with everything that its answer depends on."""

    model: str
    prompt: str
    num_outputs: int
    sampling: Sampling
    stopping: Stopping


@dataclass(frozen=True, slots=True)
class Told:
    """One output, to the last bit."""

    data: bytes
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Server:
    address: str
    pid: int

    @property
    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All families in one process, few rows, so that requests meet, wait and are parked."""
    folder = tmp_path_factory.mktemp("families")
    torch.manual_seed(1)
    vocabulary = CharVocabulary(ALPHABET)
    for family in FAMILIES:
        sizes = {"hidden_size": 32, "embedding_size": 8, "num_layers": 2, "context_length": 24}
        model = build(ModelConfig(family=family, vocab_size=vocabulary.size, **sizes))
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
        save(folder / family, model, vocabulary, {})
    command = [*CHARLM, "serve", str(folder), "--port", "0", "--max-batch-size", "16"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip().rsplit(" ", 1)[-1]
        yield Server(address, process.pid)
        process.terminate()
        assert process.wait(STOP_TIMEOUT_S) == 0


def drawn_ask(chance: random.Random) -> Ask:
    prompt = "".join(chance.choices(ALPHABET, k=chance.choice([0, 1, 5, 30, 200])))
    special = [
        {},
        {"temperature": 0.7},
        {"temperature": 0.0},
        {"top_k": 5, "top_p": 0.9},
        {"repetition_penalty": 1.3, "penalty_window": 9},
        {"min_p": 0.05, "typical_p": 0.9},
    ]
    stops = ("qu", "ab") if chance.random() < 0.3 else ()
    length = chance.choice([1, 7, 64, 150])
    return Ask(
        chance.choice(FAMILIES),
        prompt,
        chance.choice([1, 1, 1, 3]),
        Sampling(seed=chance.getrandbits(60), **chance.choice(special)),
        Stopping(max_new_tokens=length, stop_sequences=stops, ignore_end_of_text=True),
    )


async def whole(client: Client, ask: Ask) -> list[Told]:
    """The answer in one message."""
    generation = await client.generate(
        ask.prompt,
        model=ask.model,
        sampling=ask.sampling,
        stopping=ask.stopping,
        num_outputs=ask.num_outputs,
    )
    return [Told(each.data, each.token_ids, each.logprobs) for each in generation.outputs]


async def streamed(
    channel: grpc.aio.Channel, ask: Ask, chance: random.Random, *, leaves: bool = False
) -> list[Told]:
    """The response joined from chunks of some size; a cancelled call has its beginning."""
    generate = generate_message(
        ask.prompt,
        model=ask.model,
        sampling=ask.sampling,
        stopping=ask.stopping,
        num_outputs=ask.num_outputs,
        replace_unknown=False,
    )
    size = chance.choice([None, 1, 2, 17])
    request = pb.StreamGenerateRequest(generate=generate, max_chunk_tokens=size)
    data = [b""] * ask.num_outputs
    columns: list[list[tuple[int, float]]] = [[] for _ in data]
    stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
    call = stub.StreamGenerate(request, timeout=CALL_TIMEOUT_S)
    async for response in call:
        for chunk in response.chunks:
            data[chunk.index] += chunk.data
            tokens = chunk.tokens
            columns[chunk.index] += zip(tokens.token_ids, tokens.logprobs, strict=True)
        if leaves and chance.random() < 0.5:
            call.cancel()
            break
    return [
        Told(each, tuple(token for token, _ in column), tuple(logprob for _, logprob in column))
        for each, column in zip(data, columns, strict=True)
    ]


def is_beginning(found: Told, alone: Told) -> bool:
    num = len(found.token_ids)
    return (
        alone.data.startswith(found.data)
        and found.token_ids == alone.token_ids[:num]
        and found.logprobs == alone.logprobs[:num]
    )


class Company:
    """Many who ask at once, each one thing after the other, until the time is over."""

    def __init__(
        self, client: Client, channel: grpc.aio.Channel, alone: list[tuple[Ask, list[Told]]]
    ) -> None:
        self._client, self._channel, self._alone = client, channel, alone
        self.num_compared = 0

    async def stay(self, seed: int, ends_at: float) -> None:
        chance = random.Random(seed)
        loop = asyncio.get_running_loop()
        while loop.time() < ends_at:
            ask, wanted = chance.choice(self._alone)
            form = chance.randrange(4)
            if form == 0:
                assert await whole(self._client, ask) == wanted
            elif form == 1:
                found = await streamed(self._channel, ask, chance, leaves=True)
                assert all(map(is_beginning, found, wanted))
            else:
                assert await streamed(self._channel, ask, chance) == wanted
            self.num_compared += 1


async def test_bits_do_not_depend_on_the_other_rows(server: Server) -> None:
    chance = random.Random(2)
    asks = [drawn_ask(chance) for _ in range(NUM_ASKS)]
    async with (
        Client(server.address, timeout_s=CALL_TIMEOUT_S) as client,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        company = Company(client, channel, [(ask, await whole(client, ask)) for ask in asks])
        loop = asyncio.get_running_loop()

        async def together(seconds: float, seed: int) -> None:
            ends_at = loop.time() + seconds
            async with asyncio.TaskGroup() as companions:
                for number in range(NUM_COMPANIONS):
                    companions.create_task(company.stay(seed + number, ends_at))

        await together(SECONDS / 5, 1_000)
        warm_bytes = server.resident_bytes
        await together(SECONDS, 2_000)
        print(f"{company.num_compared:,} answers in company had the bits that they have alone; ")
        print(f"memory {warm_bytes:,} to {server.resident_bytes:,} bytes")

    assert company.num_compared > 10 * NUM_COMPANIONS
    assert server.resident_bytes <= MAX_GROWTH * warm_bytes


async def test_scores_have_the_bits_that_were_streamed(server: Server) -> None:
    chance = random.Random(3)
    async with Client(server.address, timeout_s=CALL_TIMEOUT_S) as client:
        for family in FAMILIES:
            stopping = Stopping(max_new_tokens=100, ignore_end_of_text=False)
            prompt = "".join(chance.choices(ALPHABET, k=20))
            (output,) = (
                await client.generate(
                    prompt, model=family, sampling=Sampling(seed=5), stopping=stopping
                )
            ).outputs
            (score,) = await client.score([output.text], model=family, context=prompt)

            assert score.token_ids == output.token_ids
            assert score.logprobs == output.logprobs
